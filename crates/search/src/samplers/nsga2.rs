//! NSGA-II: a population that breeds.
//!
//! Every `population_size` finished trials are a generation. The parents of the next one are the best of the last
//! generation and its own parents together: whole fronts first, and of the front that does not fit the members
//! with the most room around them (*crowding distance*). A child takes each value from one of two parents, each the
//! winner of two drawn at random, and each value is with probability 1/d replaced by a random one.
//!
//! Generations are counted from the trials that are complete, so that the population follows from the history
//! alone. Pending trials are not seen: a batch within a generation costs nothing.
//!
//! # Source
//! Deb, Pratap, Agarwal, Meyarivan: *A fast and elitist multiobjective genetic algorithm*, IEEE TEVC 2002. As in
//! Optuna, crossover is uniform and mutation draws anew, where the paper has SBX and polynomial mutation.

use super::{Member, Observation, Outcome, Request, Sampler, random};
use crate::objective::losses;
use crate::{Assignment, Parameter, Stream, pareto};

/// NSGA-II.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nsga2 {
    /// Trials per generation; the first one is random. Optuna's default of 50 leaves three generations to a search
    /// of 200 trials; 20 was clearly better there (`tools/optuna_compare.py`).
    pub population_size: usize,
}

impl Default for Nsga2 {
    fn default() -> Self {
        Self { population_size: 20 }
    }
}

pub(super) const MEMBER: Member = Member {
    name: "nsga2",
    summary: "a population that breeds: for thousands of cheap trials",
    build: |_| Box::new(Nsga2::default()),
};

/// How often a child has two parents rather than one; Optuna's number.
const CROSSOVER: f64 = 0.9;

/// A candidate for parenthood.
struct Individual<'a> {
    assignment: &'a Assignment,
    losses: Vec<f64>,
}

impl Sampler for Nsga2 {
    fn name(&self) -> &'static str {
        MEMBER.name
    }

    fn propose(&self, request: &Request<'_>) -> Assignment {
        let parents = parents(request, self.population_size.max(2));
        let mut stream = Stream::new(request.seed, request.number);
        if parents.is_empty() {
            return random::Random.propose(request);
        }
        let first = winner(&parents, &mut stream);
        let second = if stream.uniform() < CROSSOVER { winner(&parents, &mut stream) } else { first };
        let parameters = request.space.parameters();
        let mutation = 1.0 / parameters.len() as f64;
        let mut child = Assignment::default();
        for parameter in parameters {
            let parent = if stream.uniform() < 0.5 { first } else { second };
            let inherited = inherited(parent, parameter).filter(|_| stream.uniform() >= mutation);
            let value = inherited.unwrap_or_else(|| random::draw(parameter, &mut stream));
            child.set(parameter.clone(), value);
        }
        child
    }
}

/// Who may breed now; nobody in the first generation.
fn parents<'a>(request: &Request<'a>, size: usize) -> Vec<Individual<'a>> {
    let complete: Vec<&Observation<'a>> =
        request.history.iter().filter(|it| matches!(it.outcome, Outcome::Complete { .. })).collect();
    let mut parents = Vec::new();
    for generation in complete.chunks_exact(size) {
        parents.extend(generation.iter().filter_map(|it| individual(it, request)));
        parents = survivors(parents, size);
    }
    parents
}

/// A complete trial as a candidate. One that breaks constraints is worse than any that does not.
fn individual<'a>(observation: &Observation<'a>, request: &Request<'a>) -> Option<Individual<'a>> {
    let Outcome::Complete { values, violation } = observation.outcome else { return None };
    if values.len() != request.objectives.len() {
        return None;
    }
    let feasible = violation <= 0.0;
    let losses =
        if feasible { losses(values, request.objectives) } else { vec![f64::INFINITY; values.len()] };
    Some(Individual { assignment: observation.assignment, losses })
}

/// The `count` best, by front and then by room around them.
fn survivors(population: Vec<Individual<'_>>, count: usize) -> Vec<Individual<'_>> {
    let all: Vec<Vec<f64>> = population.iter().map(|it| it.losses.clone()).collect();
    let ranks = pareto::ranks_of_losses(&all);
    let mut room = vec![0.0; all.len()];
    for rank in 0..=ranks.iter().copied().max().unwrap_or(0) {
        let members: Vec<usize> = (0..all.len()).filter(|&it| ranks[it] == rank).collect();
        for (&member, distance) in members.iter().zip(crowding(&members, &all)) {
            room[member] = distance;
        }
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|&a, &b| ranks[a].cmp(&ranks[b]).then(room[b].total_cmp(&room[a])));
    let mut is_kept = vec![false; all.len()];
    for &place in order.iter().take(count) {
        is_kept[place] = true;
    }
    population.into_iter().zip(is_kept).filter(|(_, kept)| *kept).map(|(it, _)| it).collect()
}

/// The distance between each member's two neighbours, summed over the objectives, each relative to its range; the
/// outermost have infinite room. One number per member.
fn crowding(members: &[usize], losses: &[Vec<f64>]) -> Vec<f64> {
    let mut room = vec![0.0; members.len()];
    let member_losses: Vec<&Vec<f64>> = members.iter().map(|&it| &losses[it]).collect();
    #[expect(clippy::needless_range_loop, reason = "an objective is a column of the losses, not a row")]
    for objective in 0..member_losses.first().map_or(0, |it| it.len()) {
        let loss = |place: usize| member_losses[place][objective];
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|&a, &b| loss(a).total_cmp(&loss(b)));
        let (first, last) = (order[0], order[order.len() - 1]);
        let range = loss(last) - loss(first);
        // One value for all says nothing about room, and infinite ones leave no scale to measure it on.
        if range <= 0.0 || !range.is_finite() {
            continue;
        }
        room[first] = f64::INFINITY;
        room[last] = f64::INFINITY;
        for neighbours in order.windows(3) {
            room[neighbours[1]] += (loss(neighbours[2]) - loss(neighbours[0])) / range;
        }
    }
    room
}

/// The better of two drawn at random; the second if neither dominates.
fn winner<'a, 'b>(parents: &'b [Individual<'a>], stream: &mut Stream) -> &'b Individual<'a> {
    let (first, second) = (&parents[stream.index(parents.len())], &parents[stream.index(parents.len())]);
    if pareto::dominates(&first.losses, &second.losses) { first } else { second }
}

/// What a parent has to give for a parameter, if the space still allows it.
fn inherited(parent: &Individual<'_>, parameter: &Parameter) -> Option<f64> {
    let value = parent.assignment.internal(&parameter.name)?;
    let theirs = parent.assignment.distribution(&parameter.name)?;
    let usable = theirs.is_compatible(&parameter.distribution) && parameter.distribution.contains(value);
    usable.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_have_infinite_room_and_others_what_lies_between_their_neighbours() {
        // Ranges are 4 and 4; the middle one's neighbours differ by 4 in both: 1 + 1.
        let losses = [[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]].map(Vec::from);
        assert_eq!(crowding(&[0, 1, 2], &losses), [f64::INFINITY, 2.0, f64::INFINITY]);
    }

    #[test]
    fn survivors_are_whole_fronts_and_then_those_with_room() {
        let assignment = Assignment::default();
        let losses = [[0.0, 8.0], [1.0, 7.0], [2.0, 6.0], [8.0, 0.0], [9.0, 9.0]];
        let population =
            losses.iter().map(|it| Individual { assignment: &assignment, losses: it.to_vec() }).collect();
        // Of the first front, (1, 7) has the least room: (2 − 0)/8 + (8 − 6)/8.
        let kept: Vec<Vec<f64>> = survivors(population, 3).into_iter().map(|it| it.losses).collect();
        assert_eq!(kept, [[0.0, 8.0], [2.0, 6.0], [8.0, 0.0]]);
    }
}
