//! `ablate collect`: what others have noted of their models.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hub::{Client, Listed};
use pipeline::reproduction::{FILE, REPRODUCE};

use crate::terminal::remark;
use crate::{fetching, interrupt};

/// Gather the `reproduce.json` files of public models of the hub that this program and heretic have made
///
/// Each goes to FOLDER/HUB/OWNER/NAME-COMMIT.json; what is there already is not fetched again. Models whose owners want
/// to be asked first, and quantized copies, are left out.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Tags that models which can be made again have: whose they are, and that they can.
const TAGS: [[&str; 2]; 2] = [["heretic", "reproducible"], ["ablate", "reproducible"]];

/// The tag of quantized copies, which have the files of what they are copies of.
const QUANTIZED: &str = "gguf";

/// Letters of a commit that tell files apart.
const SHORT: usize = 7;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    collect(&arguments.folder)
}

/// Gathers the files into a folder.
pub(crate) fn collect(folder: &Path) -> anyhow::Result<()> {
    let client = fetching::client();
    let host = host(&client.access().endpoint);
    let mut listed = Vec::new();
    for tags in TAGS {
        for it in client.models(&tags)? {
            // A model may have been made by both.
            if !listed.contains(&it) {
                listed.push(it);
            }
        }
    }
    interrupt::listen()?;
    let (mut found, mut fetched, mut failed) = (0, 0, 0);
    for it in listed {
        if interrupt::requested() {
            break;
        }
        let id = &it.repository.id;
        match gather(&client, &host, folder, &it) {
            Ok(Gathered::Fetched) => {
                (found, fetched) = (found + 1, fetched + 1);
                remark(&format!("{id}: downloaded"));
            }
            Ok(Gathered::ThereAlready) => {
                found += 1;
                remark(&format!("{id}: is there already"));
            }
            Ok(Gathered::HasNone) => remark(&format!("{id}: has no {REPRODUCE}/{FILE}")),
            Ok(Gathered::LeftOut) => {}
            Err(error) => {
                failed += 1;
                remark(&format!("{id}: {error:#}"));
            }
        }
    }
    remark(&format!("{found} files found, {fetched} downloaded, {} were there", found - fetched));
    if failed > 0 {
        anyhow::bail!(
            "{failed} models could not be asked\n\nhint: the same command goes on where it stopped"
        );
    }
    Ok(())
}

/// What became of a model.
enum Gathered {
    Fetched,
    ThereAlready,
    HasNone,
    LeftOut,
}

fn gather(client: &Client, host: &str, folder: &Path, it: &Listed) -> anyhow::Result<Gathered> {
    let repository = &it.repository;
    if it.tags.iter().any(|it| it == QUANTIZED) || (it.gated && !client.may_read(repository)?) {
        return Ok(Gathered::LeftOut);
    }
    let file = format!("{REPRODUCE}/{FILE}");
    let Some((owner, name)) = repository.id.split_once('/') else { return Ok(Gathered::LeftOut) };
    let Some(commit) = client.last_commit(repository, &file)? else { return Ok(Gathered::HasNone) };
    let short: String = commit.chars().take(SHORT).filter(char::is_ascii_alphanumeric).collect();
    let target = folder.join(host).join(owner).join(format!("{name}-{short}.json"));
    if target.exists() {
        return Ok(Gathered::ThereAlready);
    }
    let downloaded = client.file(repository, "main", &file)?;
    keep(&downloaded, &target).with_context(|| format!("writing `{}`", target.display()))?;
    Ok(Gathered::Fetched)
}

/// Copies beside the target and gives it its name: what is there is whole.
fn keep(from: &Path, target: &Path) -> std::io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::copy(from, file.path())?;
    file.persist(target)?;
    Ok(())
}

/// The hub's name without scheme and port.
fn host(endpoint: &str) -> String {
    let name = endpoint.split_once("://").map_or(endpoint, |it| it.1);
    let name = name.split(['/', ':']).next().unwrap_or_default();
    if name.is_empty() { "hub".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_under_the_hubs_name() {
        assert_eq!(host("https://huggingface.co"), "huggingface.co");
        assert_eq!(host("http://127.0.0.1:8080/x"), "127.0.0.1");
    }
}
