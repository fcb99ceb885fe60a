//! Settings of the program around a run: which model, where studies and models go. (What a run itself is told stands
//! in `pipeline::Settings`.)

use checkpoint::Quantization;
use pipeline::AdapterKind;
use serde_json::Value;
use settings::{Kind, settings};

settings! {
    /// What the program is told beside the run's settings.
    pub(crate) struct Program {
        section "Model";

        /// The model: a Hugging Face folder, a GGUF file, or a repository of the hub.
        pub model: Option<String> = None;
        /// The commit of a model of the hub; the newest if not given, and then noted in the study.
        pub model_commit: Option<String> = None;
        /// Precision of the weights: `auto` keeps what the file has; others are `float32`, `bfloat16`, `float16`.
        ///
        /// Only the first is looked at: nothing here fails to load in one precision and loads in another. The option
        /// --dtype counts more.
        pub dtypes: Vec<String> = vec!["auto".to_owned()];
        /// Hold weights in blocks of small integers while the model is searched or scored: for machines with little memory.
        ///
        /// q8_0: 8.5 bits a weight. q4_k: 4.6 bits, where rows are whole blocks of 256, else as q8_0. Blocks of these
        /// kinds that a GGUF file has are held as they are. Directions are found and trials are scored with these weights;
        /// what is written is made of the file's own numbers. none: as `dtypes` says.
        pub quantize: Option<Quantize> [Kind::Choice(quantizations)] = None;
        /// heretic's word for `quantize`: bnb_4bit is taken for q4_k.
        pub quantization: String [Kind::Choice(|| vec!["none", "bnb_4bit"])] = "none".to_owned();

        section "Preset";

        /// Prompts, markers and goals for a behaviour; whatever else is set counts more.
        pub preset: String [Kind::Choice(pipeline::presets::names)] = pipeline::presets::PRESETS[0].name.to_owned();

        section "Study";

        /// Study file, Optuna's journal format; one for each model in the folder of studies if not given.
        pub study: Option<String> = None;
        /// Folder of studies.
        pub study_checkpoint_dir: String = "checkpoints".to_owned();
        /// What to do when the study exists: asked if there is a terminal, else continue.
        ///
        /// continue: go on with its settings. restart: begin anew; the old file is kept with `.old` at its name's end.
        pub checkpoint_action: Option<CheckpointAction> [Kind::Choice(checkpoint_actions)] = None;

        section "Choice";

        /// Choose the trial by a sentence in place of a menu: "min kl where refusals <= 5", "min refusals then min kl".
        ///
        /// Scores by name, or by the beginning of a name. What counts is compared by its count; with % by its share.
        /// What comes after `then` decides between equal trials.
        pub pick: Option<String> = None;
        /// Choose the trial by its number, from 0, as tables, events, the menu and Optuna have it.
        pub trial: Option<usize> = None;
        /// heretic's way to choose: by the place in the front, from 0, in the order of the first objective. It is no
        /// trial's number; that is `trial`.
        pub trial_index: Option<usize> = None;
        /// How many trials "Run more trials" in the menu runs: asked if not given.
        pub n_additional_trials: Option<usize> [Kind::Integer { least: 1 }] = None;

        section "Saving";

        /// Write the edited model here: a folder, or for a GGUF model a file.
        pub save_directory: Option<String>, also "save" = None;
        /// How large a file of weights may become.
        pub max_shard_size: Value = Value::from("5GB");
        /// What is written: asked in the menu if not given, else the whole model.
        ///
        /// merge: the whole model. adapter: what changes, as a small file that other programs add to the original.
        pub export_strategy: Option<ExportStrategy> [Kind::Choice(|| vec!["merge", "adapter"])] = None;
        /// What an adapter is: the kind that fits if not given.
        ///
        /// lora, dora: a folder for Python's peft. gguf: a file for llama.cpp. Edits of row normalization none and pre
        /// are exactly a LoRA, those of full exactly a DoRA. GGUF files have no DoRA.
        pub adapter_kind: Option<AdapterKind> [Kind::Choice(adapter_kinds)] = None;
        /// The rank of a LoRA that approximates an edit of row normalization full. What it leaves out is told.
        pub full_normalization_lora_rank: usize [Kind::Integer { least: 1 }], also "lora-rank" = 3;
        /// What to do with the chosen trial without a menu: save it, or upload it.
        pub model_action: Option<ModelAction> [Kind::Choice(|| vec!["save", "upload"])] = None;

        section "Upload";

        /// Upload the edited model to this repository of the hub, which is made if it does not exist.
        pub upload_repo_id: Option<String>, also "upload" = None;
        /// Make the repository a private one, if it has to be made.
        pub upload_repo_private: bool = true;

        section "Reproduction";

        /// What is written beside the model, in a folder `reproduce`, so that it can be made again: asked in the menu
        /// if not given, else nothing.
        ///
        /// full: settings, parameters, scores, versions, digests, and what system this is. basic: the same without the
        /// system. none: nothing. Of what lies on this machine alone only the last part of the name is written; uploads
        /// have the folder only if all that the model was made of is on the hub.
        pub upload_reproducibility_information: Option<Material> [Kind::Choice(|| vec!["full", "basic", "none"])],
            also "reproduction" = None;
        /// Make the model of this file or address again (as `ablate reproduce` does), in place of a run.
        pub reproduce: Option<String> = None;
        /// What to do when a model is made again and something is different here: asked if there is a terminal.
        ///
        /// Without a terminal, another version or machine is no reason to stop; another model or other prompts are.
        pub ignore_mismatches: Option<bool> = None;
        /// Gather what others have noted of their models into this folder (as `ablate collect` does), in place of a run.
        pub collect_reproducibles: Option<String> = None;
    }
}

impl Program {
    /// An error where settings ask for another job than the one that was begun.
    pub(crate) fn no_other_job(&self) -> anyhow::Result<()> {
        for (key, told, command) in [
            ("reproduce", &self.reproduce, "reproduce"),
            ("collect_reproducibles", &self.collect_reproducibles, "collect"),
        ] {
            if let Some(told) = told {
                anyhow::bail!(
                    "`{key}` is set, and this is another command's work\n\nhint: `ablate {command} {told}`"
                );
            }
        }
        Ok(())
    }
}

/// What to do when a study exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckpointAction {
    /// Go on with its settings.
    Continue,
    /// Begin anew.
    Restart,
    /// Ask.
    Ask,
}

/// The blocks that weights are held in while a model is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Quantize {
    /// None: as --dtype says.
    None,
    /// 8.5 bits a weight.
    #[value(name = "q8_0")]
    #[serde(rename = "q8_0")]
    Q8,
    /// 4.6 bits a weight, where rows are whole blocks of 256.
    #[value(name = "q4_k")]
    #[serde(rename = "q4_k")]
    Q4,
}

impl Quantize {
    /// The blocks.
    pub(crate) fn blocks(self) -> Option<Quantization> {
        match self {
            Self::None => None,
            Self::Q8 => Some(Quantization::Q8_0),
            Self::Q4 => Some(Quantization::Q4_K),
        }
    }

    /// Those of a name that was noted; none where none was.
    pub(crate) fn of_blocks(blocks: Option<&str>) -> Self {
        match blocks.and_then(Quantization::named) {
            None => Self::None,
            Some(Quantization::Q8_0) => Self::Q8,
            Some(Quantization::Q4_K) => Self::Q4,
        }
    }
}

fn quantizations() -> Vec<&'static str> {
    std::iter::once("none").chain(Quantization::ALL.map(Quantization::name)).collect()
}

fn adapter_kinds() -> Vec<&'static str> {
    AdapterKind::ALL.iter().map(|it| it.name()).collect()
}

/// What is written of an edited model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExportStrategy {
    /// All of it.
    Merge,
    /// What changes.
    Adapter,
}

fn checkpoint_actions() -> Vec<&'static str> {
    vec!["continue", "restart", "ask"]
}

/// What to do with the chosen trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModelAction {
    /// Write it to the folder that is set.
    Save,
    /// Bring it to the repository that is set.
    Upload,
}

/// What is noted of a model that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Material {
    /// Everything, and what system this is.
    Full,
    /// Everything but that.
    Basic,
    /// Nothing.
    None,
}

settings! {
    /// Settings of heretic that have no effect here. They are accepted, so that its files work, and a remark is made
    /// where one has another value than there by default. The documentation says why.
    pub(crate) struct WithoutEffect {
        section "Without effect";

        /// The device is chosen with --device.
        pub device_map: Value = Value::from("auto");
        /// Weights stay in the model's files where the system can map them.
        pub max_memory: Value = Value::Null;
        /// There is nothing to move.
        pub offload_outputs_to_cpu: bool = true;
        /// What is known is in the study file, or printed with --json.
        pub print_debug_information: bool = false;
        /// There are no plots yet.
        pub plot_residuals: bool = false;
        /// There are no plots yet.
        pub residual_plot_path: String = "plots".to_owned();
        /// There are no plots yet.
        pub residual_plot_title: Value = Value::Null;
        /// There are no plots yet.
        pub residual_plot_style: Value = Value::Null;
        /// There are no benchmarks in the menu.
        pub benchmarks: Value = Value::Null;
        /// The divergence is an objective of its own, on no assumed scale (heretic 1.4).
        pub kl_divergence_scale: f64 = 1.0;
        /// The divergence is an objective of its own; --pick chooses (heretic 1.4).
        pub kl_divergence_target: f64 = 0.01;
    }
}

/// Settings of heretic that ask for another job than the command's, and what to write instead.
pub(crate) const OTHER_JOBS: [(&str, &str); 1] =
    [("evaluate_model", "compare two models with `ablate evaluate EDITED --against ORIGINAL`")];

#[cfg(test)]
mod tests {
    use settings::Fields;

    use super::*;

    /// What scores depend on: `pipeline::identity` compares what comes of them, the loaded model and the run's settings.
    const SCORED: [&str; 6] = ["model", "model_commit", "dtypes", "quantize", "quantization", "preset"];

    /// What may be another whenever a study is resumed.
    const FREE: [&str; 19] = [
        "study",
        "study_checkpoint_dir",
        "checkpoint_action",
        "pick",
        "trial",
        "trial_index",
        "n_additional_trials",
        "save_directory",
        "max_shard_size",
        "export_strategy",
        "adapter_kind",
        "full_normalization_lora_rank",
        "model_action",
        "upload_repo_id",
        "upload_repo_private",
        "upload_reproducibility_information",
        "reproduce",
        "ignore_mismatches",
        "collect_reproducibles",
    ];

    #[test]
    fn every_setting_of_the_program_is_part_of_a_studys_identity_or_free() {
        for name in Program::FIELDS.iter().map(|it| it.name) {
            let places = [SCORED.contains(&name), FREE.contains(&name)];
            assert_eq!(
                places.iter().filter(|it| **it).count(),
                1,
                "say what `{name}` is to a study that is resumed"
            );
        }
    }
}
