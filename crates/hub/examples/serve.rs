//! The hub of the tests as a program: `serve FOLDER` serves `FOLDER/models/OWNER/NAME/…` and
//! `FOLDER/datasets/OWNER/NAME/…`, prints its address, and ends with its standard input. Repositories whose names begin
//! in `private-` and `gated-` are that.

#![expect(clippy::print_stdout, reason = "a program for tests")]

#[path = "../tests/server/mod.rs"]
mod server;

use std::path::Path;

fn main() {
    let root = std::env::args().nth(1).expect("a folder");
    let server = server::Server::start(0);
    for kind in ["models", "datasets"] {
        for owner in folders(&Path::new(&root).join(kind)) {
            for name in folders(&owner) {
                let mut files = Vec::new();
                collect(&name, &name, &mut files);
                let text = |it: &Path| it.file_name().unwrap().to_str().unwrap().to_owned();
                let key = format!("{kind}/{}/{}", text(&owner), text(&name));
                server.change(|state| {
                    let repo = state.repos.entry(key).or_default();
                    repo.private = text(&name).starts_with("private-");
                    repo.gated = text(&name).starts_with("gated-");
                    repo.files.extend(files);
                });
            }
        }
    }
    println!("{}", server.address);
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn folders(root: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|it| it.path()).filter(|it| it.is_dir()).collect()
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for path in std::fs::read_dir(folder).unwrap().flatten().map(|it| it.path()) {
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            files.push((name, std::fs::read(&path).unwrap()));
        }
    }
}
