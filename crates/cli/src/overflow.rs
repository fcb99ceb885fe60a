//! Numbers that have grown beyond what they are held in.

use engine::{Answer, StopReason};

/// An error if answers ended because of that: what there is of them is no answer of the model.
pub(crate) fn check(answers: &[Answer], dtype: &str) -> anyhow::Result<()> {
    match answers.iter().filter(|it| it.stop == StopReason::Overflow).count() {
        0 => Ok(()),
        count => anyhow::bail!(
            "{count} of {} answers end in numbers that have overflowed (weights in {dtype})\n\n\
             hint: choose another --dtype: bf16 and f32 have a wider range than f16",
            answers.len()
        ),
    }
}
