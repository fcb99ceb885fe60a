//! The model card: what was done to a model, with which parameters, and what was measured.

use std::fmt::Write as _;

use ablation::Parameters;

use crate::{Adapter, Quantized, ScoreRecord, Session};

mod adapter;
mod original;

use original::Original;

/// What a card belongs to.
#[derive(Clone, Copy)]
pub enum Product<'a> {
    /// A whole model.
    Model {
        /// Whether others can make it again from a folder beside the card.
        reproducible: bool,
    },
    /// An adapter for the original. Its card does not repeat that of the original.
    Adapter {
        /// It.
        adapter: &'a Adapter,
        /// Whether the scores are those of the adapter, where it is not exact.
        scored: bool,
    },
}

/// The text of a `README.md` for an edited model: the original's metadata (licence, languages, tags) with ours, what was
/// done, and what the original's card says.
///
/// `unseen`: scores on prompts that the search did not see; empty where there are none.
pub fn model_card(
    session: &Session,
    parameters: &Parameters,
    scores: &[ScoreRecord],
    unseen: &[ScoreRecord],
    product: Product<'_>,
) -> String {
    let settings = session.settings();
    let original = session.model.checkpoint.path();
    let (name, _) = session.model.name_and_commit();
    let card_of_original = Original::beside(original);
    let metadata = match product {
        Product::Model { reproducible } => {
            let tags = ["ablate", "abliterated", "reproducible"];
            card_of_original.metadata(&name, &tags[..if reproducible { 3 } else { 2 }], &[])
        }
        Product::Adapter { adapter, .. } => adapter::metadata(adapter, &card_of_original, &name),
    };
    let what = match product {
        Product::Model { reproducible: false } => String::new(),
        Product::Model { reproducible: true } => " [How to make it again](reproduce/README.md).".to_owned(),
        Product::Adapter { adapter, scored } => adapter::how_to_use(adapter, scored, &name),
    };
    let mut card = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        card,
        "---\n{metadata}\n---\n\n# {name}, edited\n\n\
         A direction of the residual stream was taken out of this model's weights with \
         [ablate](https://github.com/ablate-rs/ablate) {}. Nothing was trained.{what}\n\n\
         ## Scores\n\n{}\n\
         The divergence is KL(original ‖ edited) of the first token of an answer, in nats. The prompts of \
         the first columns are those that the parameters were chosen by, so that these scores flatter a little; the \
         last column is of prompts that the search did not see, where there were any.{}\n\n\
         ## Parameters\n\n| parameter | value |\n|---|---|\n",
        env!("CARGO_PKG_VERSION"),
        score_rows(scores, unseen),
        session.calibration().quantized.as_ref().map_or(String::new(), measured_in_blocks),
    );
    match parameters.direction_index {
        Some(index) => {
            let _ = writeln!(card, "| direction_index | {index:.2} |");
        }
        None => card.push_str("| direction_index | per layer |\n"),
    }
    for (component, profile) in &parameters.abliteration_parameters {
        for (name, value) in [
            ("max_weight", profile.max_weight),
            ("max_weight_position", profile.max_weight_position),
            ("min_weight", profile.min_weight),
            ("min_weight_distance", profile.min_weight_distance),
        ] {
            let _ = writeln!(card, "| {component}.{name} | {value:.4} |");
        }
    }
    let normalization = serde_json::to_value(settings.row_normalization).unwrap_or_default();
    let _ = write!(
        card,
        "| row_normalization | {} |\n| orthogonalize_direction | {} |\n| winsorization_quantile | {} |\n\n\
         In full precision, as `ablate evaluate --parameters` reads them:\n\n```json\n{}\n```\n",
        normalization.as_str().unwrap_or_default(),
        settings.orthogonalize_direction,
        settings.winsorization_quantile,
        serde_json::to_string_pretty(parameters).unwrap_or_default(),
    );
    if let Product::Adapter { adapter, .. } = product {
        card.push_str(&adapter::errors(adapter));
    } else if !card_of_original.text.is_empty() {
        let _ =
            write!(card, "\n---\n\nThe card of {name}, the original, says:\n\n{}\n", card_of_original.text);
    }
    card
}

/// A sentence on scores that are those of weights in blocks.
fn measured_in_blocks(Quantized { blocks, kl_divergence }: &Quantized) -> String {
    let noise = kl_divergence.map_or(String::new(), |it| {
        format!(
            ", which alone moves the original by {it:.4} nats (KL(full ‖ {blocks}), mean of first tokens)"
        )
    });
    format!(
        " While this was measured, the weights of edited model and original were held in {blocks} blocks{noise}; the \
         weights that were written are of full precision."
    )
}

fn score_rows(scores: &[ScoreRecord], unseen: &[ScoreRecord]) -> String {
    let mut rows =
        String::from("| score | this model | original | | on unseen prompts |\n|---|---|---|---|---|\n");
    for it in scores {
        let elsewhere = unseen.iter().find(|other| other.name == it.name);
        let elsewhere = elsewhere.map_or(String::new(), |it| format!("{} ({})", it.display, it.spread()));
        let (baseline, spread) = (it.baseline_display(), it.spread());
        let _ = writeln!(rows, "| {} | {} | {baseline} | {spread} | {elsewhere} |", it.name, it.display);
    }
    rows
}
