//! The model card: what was done to a model, with which parameters, and what was measured.

use std::fmt::Write as _;

use ablation::Parameters;

use crate::{Evaluation, ScoreRecord, Session};

/// The text of a `README.md` for an edited model.
pub fn model_card(session: &Session, parameters: &Parameters, evaluation: &Evaluation) -> String {
    let settings = session.settings();
    let original = session.model.checkpoint.path();
    let name = hub::Repository::of_cached(original).map_or_else(
        || original.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
        |(repository, _)| repository.id,
    );
    let mut card = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        card,
        "---\nbase_model: {}\ntags:\n- ablate\n- abliterated\n---\n\n# {name}, edited\n\n\
         A direction of the residual stream was taken out of this model's weights with \
         [ablate](https://github.com/ablate-rs/ablate) {}. Nothing was trained.\n\n\
         ## Scores\n\n{}\n\
         The divergence is KL(original ‖ edited) of the first token of an answer, in nats. Intervals are of 95 %.\n\n\
         ## Parameters\n\n| parameter | value |\n|---|---|\n",
        serde_json::Value::from(name.as_str()),
        env!("CARGO_PKG_VERSION"),
        score_rows(&evaluation.scores),
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
    card
}

fn score_rows(scores: &[ScoreRecord]) -> String {
    let mut rows = String::from("| score | this model | original | |\n|---|---|---|---|\n");
    for it in scores {
        let more = match (it.details.interval, it.details.median, it.details.max) {
            (Some([low, high]), ..) => format!("{:.1} % to {:.1} %", low * 100.0, high * 100.0),
            (None, Some(median), Some(max)) => format!("median {median:.4}, largest {max:.4}"),
            _ => String::new(),
        };
        let baseline = match (it.baseline, it.details.total) {
            (Some(share), Some(total)) if it.details.count.is_some() => {
                format!("{:.0}/{total}", share * total as f64)
            }
            (Some(value), _) => format!("{value:.4}"),
            (None, _) => String::new(),
        };
        let _ = writeln!(rows, "| {} | {} | {baseline} | {more} |", it.name, it.display);
    }
    rows
}
