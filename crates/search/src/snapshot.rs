//! A study at one moment.

use crate::hypervolume::hypervolume;
use crate::objective::losses;
use crate::{Attributes, Goal, Objective, Trial, TrialState, pareto};

/// All that is known about a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// One per objective.
    pub goals: Vec<Goal>,
    /// Notes of whoever evaluates.
    pub user_attrs: Attributes,
    /// Notes of the study itself and of samplers.
    pub system_attrs: Attributes,
    /// By number.
    pub trials: Vec<Trial>,
}

/// The system attribute that holds the objectives' names.
pub(crate) const METRIC_NAMES: &str = "study:metric_names";

impl Snapshot {
    /// A study without trials.
    pub(crate) fn new(name: String, goals: Vec<Goal>) -> Self {
        Self {
            name,
            goals,
            user_attrs: Attributes::new(),
            system_attrs: Attributes::new(),
            trials: Vec::new(),
        }
    }

    /// The objectives' names, if they were written.
    pub fn metric_names(&self) -> Option<Vec<String>> {
        let names = self.system_attrs.get(METRIC_NAMES)?.as_array()?;
        let names: Option<Vec<String>> = names.iter().map(|it| it.as_str().map(str::to_owned)).collect();
        names.filter(|it| it.len() == self.goals.len())
    }

    /// What is optimized. Objectives without a written name are called `values_0`, `values_1`, …, as in Optuna's
    /// tables.
    pub fn objectives(&self) -> Vec<Objective> {
        let names = self.metric_names();
        let name =
            |place: usize| names.as_ref().map_or_else(|| format!("values_{place}"), |it| it[place].clone());
        self.goals.iter().enumerate().map(|(place, &goal)| Objective { name: name(place), goal }).collect()
    }

    /// The complete trials that keep their constraints and that no other such trial beats, by number. Optuna's
    /// `best_trials`.
    #[doc(alias = "best_trials")]
    pub fn front(&self) -> Vec<&Trial> {
        let (trials, losses) = self.comparable();
        pareto::front_of_losses(&losses).into_iter().map(|it| trials[it]).collect()
    }

    /// The front from the best of the first objective on; where it is equal, of the second, and so on.
    pub fn sorted_front(&self) -> Vec<&Trial> {
        let (trials, losses) = self.comparable();
        let mut places = pareto::front_of_losses(&losses);
        places.sort_by(|&a, &b| pareto::lexicographic(&losses[a], &losses[b]));
        places.into_iter().map(|it| trials[it]).collect()
    }

    /// The complete trials that keep their constraints and have one value per objective: those that can be in the front,
    /// by number.
    pub fn comparable_trials(&self) -> Vec<&Trial> {
        self.comparable().0
    }

    /// The numbers of complete trials that do not have one value per objective. Other programs may write such; they are
    /// compared with nothing.
    pub fn incomparable_trials(&self) -> Vec<usize> {
        let fits = |it: &Trial| it.values.as_ref().is_some_and(|values| values.len() == self.goals.len());
        let complete = self.trials.iter().filter(|it| it.state == TrialState::Complete);
        complete.filter(|it| !fits(it)).map(|it| it.number).collect()
    }

    /// The losses of [`Self::comparable_trials`]: values, negated where an objective is maximized. None is NaN.
    pub fn comparable_losses(&self) -> Vec<Vec<f64>> {
        self.comparable().1
    }

    /// The trials that were asked and not told.
    pub fn running(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|it| it.state == TrialState::Running)
    }

    /// The hypervolume that the front dominates, in the values' own senses; `None` unless the reference has one
    /// value per objective.
    pub fn hypervolume(&self, reference: &[f64]) -> Option<f64> {
        let reference = self.reference(reference)?;
        Some(hypervolume(&self.comparable().1, &reference))
    }

    /// How the hypervolume grew: after each trial that enlarged it, the trial's number and the volume.
    pub fn growth(&self, reference: &[f64]) -> Option<Vec<(usize, f64)>> {
        let reference = self.reference(reference)?;
        let (trials, losses) = self.comparable();
        let (mut front, mut growth): (Vec<Vec<f64>>, Vec<(usize, f64)>) = (Vec::new(), Vec::new());
        for (trial, loss) in trials.iter().zip(losses) {
            if front.iter().any(|it| *it == loss || pareto::dominates(it, &loss)) {
                continue;
            }
            front.retain(|it| !pareto::dominates(&loss, it));
            front.push(loss);
            let volume = hypervolume(&front, &reference);
            if growth.last().map_or(0.0, |it| it.1) < volume {
                growth.push((trial.number, volume));
            }
        }
        Some(growth)
    }

    /// A reference point as losses.
    fn reference(&self, values: &[f64]) -> Option<Vec<f64>> {
        (values.len() == self.goals.len())
            .then(|| self.goals.iter().zip(values).map(|(goal, &it)| goal.loss(it)).collect())
    }

    /// The complete trials that keep their constraints, with their losses.
    fn comparable(&self) -> (Vec<&Trial>, Vec<Vec<f64>>) {
        let objectives = self.objectives();
        self.trials
            .iter()
            .filter(|it| it.state == TrialState::Complete && it.violation() <= 0.0)
            .filter_map(|it| Some((it, it.values.as_deref()?)))
            .filter(|(_, values)| values.len() == objectives.len())
            .map(|(trial, values)| (trial, losses(values, &objectives)))
            .unzip()
    }
}
