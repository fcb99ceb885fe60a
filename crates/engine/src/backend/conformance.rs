//! What every back end passes: each operation against [`Reference`], for sizes that fit no register.
//!
//! A [`Case`] is an operation with its sizes and a seed; it knows how to run on a back end, and how far a correct
//! f32 implementation may be from the oracle. The tolerances are bounds of rounding error, derived beside each
//! case from sums of absolute values; they hold for any order of summation. Cases are drawn by proptest from a
//! fixed seed; `PROPTEST_RNG_SEED` tries another, `PROPTEST_CASES` more.
//!
//! Back ends on the processor promise more, see [`same_bits`]: a row's bits depend neither on the rows beside it
//! nor on the number of threads, and instruction sets with fused multiply-add agree in every bit.
//!
//! A new back end adds a line with [`conformance`] at the end of this file.

mod attending;
mod experts;
mod latent;
mod products;
mod quantized;
mod recurrent;
mod rows;
mod stand_ins;
mod streams;

use std::fmt::Debug;
use std::sync::OnceLock;

use proptest::strategy::Strategy;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};

use super::cpu::{Cpu, Isa};
use super::reference::Reference;
use super::{Arithmetic, Backend};

/// One rounding more or less in each operation: twice f32's unit roundoff, for sets without fused multiply-add.
const UNIT: f64 = f32::EPSILON as f64;

/// Nothing is exact below this: products of small numbers underflow.
const SMALLEST: f64 = 1e-30;

/// An operation, the sizes of its operands and the seed of their numbers.
trait Case: Clone + Debug {
    /// How many rows, or sequences, there are that must not influence each other.
    fn parts(&self) -> usize;

    /// The case with one part alone.
    fn only(&self, part: usize) -> Self;

    /// What the operation computes, by part.
    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>>;

    /// How far from the exact result each number may be.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>>;
}

type Verdict = Result<(), TestCaseError>;

/// Draws cases of a strategy and checks them; fails with the smallest one found.
fn for_all<C: Case>(strategy: impl Strategy<Value = C>, cases: u32, check: impl Fn(&C) -> Verdict) {
    let mut config = proptest::test_runner::Config { failure_persistence: None, ..Default::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if let Err(error) = TestRunner::new(config).run(&strategy, |case| check(&case)) {
        panic!("{error}");
    }
}

/// Compares back ends with the oracle.
fn agree<B: Backend>(backends: Vec<B>, case: &impl Case) -> Verdict {
    agree_with(&mut Reference::default(), backends, case)
}

/// Compares back ends with the oracle of their arithmetic.
fn agree_with<B: Backend>(oracle: &mut Reference, backends: Vec<B>, case: &impl Case) -> Verdict {
    let exact = case.outcome(oracle);
    let tolerance = case.tolerance(&exact);
    for mut backend in backends {
        let name = backend.describe();
        let found = case.outcome(&mut backend);
        let sizes = |it: &[Vec<f32>]| it.iter().map(Vec::len).collect::<Vec<_>>();
        if sizes(&found) != sizes(&exact) {
            return Err(TestCaseError::fail(format!(
                "{name}: {:?} numbers for {:?}",
                sizes(&found),
                sizes(&exact)
            )));
        }
        for (part, (found, exact)) in found.iter().zip(&exact).enumerate() {
            for (index, (found, exact)) in found.iter().zip(exact).enumerate() {
                let allowed = tolerance[part][index];
                let by = (f64::from(*found) - f64::from(*exact)).abs();
                let agrees = by <= allowed + SMALLEST; // false when one of them is NaN
                if found.to_bits() != exact.to_bits() && !agrees {
                    return Err(TestCaseError::fail(format!(
                        "{name}: number {index} of part {part} is {found:e}, not {exact:e}: off by {by:e}, \
                         allowed are {allowed:e}"
                    )));
                }
            }
        }
    }
    Ok(())
}

fn bits(parts: &[Vec<f32>]) -> Vec<Vec<u32>> {
    parts.iter().map(|it| it.iter().map(|it| it.to_bits()).collect()).collect()
}

/// Runs on a pool of so many threads.
fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    static POOLS: [OnceLock<rayon::ThreadPool>; 3] = [const { OnceLock::new() }; 3];
    let pool = POOLS[threads - 1]
        .get_or_init(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    pool.install(f)
}

/// The processor's promise: bits depend neither on the number of threads, nor on what else is computed, nor on
/// which instruction set with fused multiply-add there is.
fn same_bits(case: &(impl Case + Sync)) -> Verdict {
    same_bits_in(Arithmetic::F32, case)
}

/// The same promise for products in a chosen arithmetic. A set that multiplies pairs of bf16 keeps to itself then.
fn same_bits_in(arithmetic: Arithmetic, case: &(impl Case + Sync)) -> Verdict {
    let cpu = |isa| Cpu::with_isa(isa).computing_in(arithmetic);
    let mut fused: Option<(Isa, Vec<Vec<u32>>)> = None;
    for isa in Isa::available() {
        let run = |case: &(dyn Fn() -> Vec<Vec<f32>> + Sync), threads| on_threads(threads, || bits(&case()));
        let all = run(&|| case.outcome(&mut cpu(isa)), 1);
        for threads in [2, 3] {
            let again = run(&|| case.outcome(&mut cpu(isa)), threads);
            if again != all {
                return Err(TestCaseError::fail(format!("{}: {threads} threads are not one", isa.name())));
            }
        }
        let parts = case.parts();
        for part in [0, parts / 2, parts - 1] {
            let alone = run(&|| case.only(part).outcome(&mut cpu(isa)), 2);
            if alone[0] != all[part] {
                return Err(TestCaseError::fail(format!("{}: part {part} alone differs", isa.name())));
            }
        }
        let by_pairs = arithmetic == Arithmetic::Bf16 && isa.multiplies_bf16();
        if isa != Isa::Portable && !by_pairs {
            match &fused {
                None => fused = Some((isa, all)),
                Some((first, bits)) if *bits != all => {
                    return Err(TestCaseError::fail(format!("{} is not {}", isa.name(), first.name())));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// The suite for a kind of back end; `$backends` makes one of each that this machine has.
macro_rules! conformance {
    ($name:ident, $backends:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn embedding_and_selecting_rows_copies_them_exactly() {
                for_all(rows::embeds(), 24, |it| agree($backends, it));
            }

            #[test]
            fn norms_agree_with_the_oracle() {
                for_all(rows::norms(), 64, |it| agree($backends, it));
            }

            #[test]
            fn writers_join_the_stream_as_the_oracle_says() {
                for_all(rows::writes(), 64, |it| agree($backends, it));
            }

            #[test]
            fn linear_layers_agree_with_the_oracle() {
                for_all(products::linears(), 48, |it| agree($backends, it));
            }

            #[test]
            fn every_number_of_rows_agrees_with_the_oracle() {
                for case in products::linears_of_every_row_count() {
                    agree($backends, &case).unwrap();
                }
            }

            #[test]
            fn gated_layers_agree_with_the_oracle() {
                for_all(products::gates(), 48, |it| agree($backends, it));
            }

            #[test]
            fn layers_in_quantized_blocks_agree_with_the_oracle() {
                for_all(quantized::layers(), 64, |it| agree($backends, it));
            }

            #[test]
            fn gates_agree_with_the_oracle() {
                for_all(rows::gates(), 48, |it| agree($backends, it));
            }

            #[test]
            fn gates_of_groups_agree_with_the_oracle() {
                for_all(rows::gates_of_groups(), 64, |it| agree($backends, it));
            }

            #[test]
            fn updates_of_several_streams_agree_with_the_oracle() {
                for_all(streams::updates(), 96, |it| agree($backends, it));
            }

            #[test]
            fn rows_brought_to_a_size_agree_with_the_oracle() {
                for_all(streams::matches(), 48, |it| agree($backends, it));
            }

            #[test]
            fn thresholds_agree_with_the_oracle() {
                for_all(streams::thresholds(), 64, |it| agree($backends, it));
            }

            #[test]
            fn mixtures_of_experts_agree_with_the_oracle() {
                for_all(experts::mixtures(), 96, |it| agree($backends, it));
            }

            #[test]
            fn heads_agree_with_the_oracle() {
                for_all(products::heads(), 48, |it| agree($backends, it));
            }

            #[test]
            fn of_equal_logits_the_lower_token_comes_first() {
                for_all(products::ties(), 32, |it| agree($backends, it));
            }

            #[test]
            fn rotations_agree_with_the_oracle() {
                for_all(attending::rotations(), 48, |it| agree($backends, it));
            }

            #[test]
            fn layers_with_states_agree_with_the_oracle() {
                for_all(recurrent::remembering(), 96, |it| agree($backends, it));
            }

            #[test]
            fn attention_agrees_with_the_oracle() {
                for_all(attending::scenarios(), 32, |it| agree($backends, it));
            }

            #[test]
            fn linear_layers_of_heads_agree_with_the_oracle() {
                for_all(latent::by_head(), 48, |it| agree($backends, it));
            }

            #[test]
            fn latents_agree_with_the_oracle() {
                for_all(latent::latents(), 48, |it| agree($backends, it));
            }

            #[test]
            fn attention_to_latents_agrees_with_the_oracle() {
                for_all(attending::scenarios_of_latents(), 32, |it| agree($backends, it));
            }
        }
    };
}

conformance!(cpu, Isa::available().into_iter().map(Cpu::with_isa).collect());

mod cpu_bits {
    use super::*;

    #[test]
    fn norms_have_the_same_bits_in_any_company() {
        for_all(rows::norms(), 24, same_bits);
    }

    #[test]
    fn writers_have_the_same_bits_in_any_company() {
        for_all(rows::writes(), 24, same_bits);
    }

    #[test]
    fn linear_layers_have_the_same_bits_in_any_company() {
        for_all(products::linears(), 24, same_bits);
    }

    #[test]
    fn every_number_of_rows_has_the_same_bits() {
        for case in products::linears_of_every_row_count() {
            same_bits(&case).unwrap();
        }
    }

    #[test]
    fn gated_layers_have_the_same_bits_in_any_company() {
        for_all(products::gates(), 24, same_bits);
    }

    #[test]
    fn layers_in_quantized_blocks_have_the_same_bits_in_any_company() {
        for_all(quantized::layers(), 32, same_bits);
    }

    #[test]
    fn quantized_blocks_have_the_bits_of_the_numbers_that_they_mean() {
        for_all(quantized::layers(), 32, quantized::Quantized::is_that_of_its_numbers);
        for case in quantized::of_every_row_count() {
            case.is_that_of_its_numbers().unwrap();
        }
    }

    #[test]
    fn layers_with_states_have_the_same_bits_in_any_company() {
        for_all(recurrent::remembering(), 48, same_bits);
    }

    #[test]
    fn sequences_that_share_a_state_have_the_bits_of_others() {
        for isa in Isa::available() {
            for_all(recurrent::remembering(), 48, |it| {
                recurrent::shared_states_have_the_same_bits(|| Cpu::with_isa(isa), it)
            });
        }
    }

    #[test]
    fn gates_have_the_same_bits_in_any_company() {
        for_all(rows::gates(), 24, same_bits);
        for_all(rows::gates_of_groups(), 24, same_bits);
    }

    #[test]
    fn streams_have_the_same_bits_in_any_company() {
        for_all(streams::updates(), 48, same_bits);
        for_all(streams::matches(), 24, same_bits);
        for_all(streams::thresholds(), 24, same_bits);
    }

    #[test]
    fn mixtures_of_experts_have_the_same_bits_in_any_company() {
        for_all(experts::mixtures(), 48, same_bits);
    }

    #[test]
    fn heads_have_the_same_bits_in_any_company() {
        for_all(products::heads(), 24, same_bits);
    }

    #[test]
    fn what_is_told_of_the_head_fits_its_logits_exactly() {
        for_all(products::heads(), 24, |case| {
            Isa::available().into_iter().try_for_each(|isa| case.consistent(&mut Cpu::with_isa(isa)))
        });
    }

    #[test]
    fn rotations_have_the_same_bits_in_any_company() {
        for_all(attending::rotations(), 24, same_bits);
    }

    #[test]
    fn attention_has_the_same_bits_in_any_company() {
        for_all(attending::scenarios(), 12, same_bits);
        for_all(attending::scenarios_of_latents(), 12, same_bits);
    }

    #[test]
    fn attention_does_not_see_how_positions_are_cut_into_pages() {
        let check = |case: &attending::Scenario| {
            for isa in Isa::available() {
                let (cut, whole) = (case.clone(), case.in_one_piece());
                let run = |it: attending::Scenario| bits(&it.outcome(&mut Cpu::with_isa(isa)));
                proptest::prop_assert_eq!(run(cut), run(whole), "{}", isa.name());
            }
            Ok(())
        };
        for_all(attending::scenarios(), 16, check);
        for_all(attending::scenarios_of_latents(), 16, check);
    }

    #[test]
    fn linear_layers_of_heads_have_the_same_bits_in_any_company() {
        for_all(latent::by_head(), 24, same_bits);
    }

    #[test]
    fn latents_have_the_same_bits_in_any_company() {
        for_all(latent::latents(), 24, same_bits);
    }
}

/// Products in bf16: instruction sets with and without an instruction for it.
mod cpu_in_bf16 {
    use super::*;

    fn agree(case: &impl Case) -> Verdict {
        let mut oracle = Reference::computing_in(Arithmetic::Bf16);
        let cpus = Isa::available().into_iter().map(|it| Cpu::with_isa(it).computing_in(Arithmetic::Bf16));
        agree_with(&mut oracle, cpus.collect(), case)
    }

    fn same_bits(case: &(impl Case + Sync)) -> Verdict {
        same_bits_in(Arithmetic::Bf16, case)
    }

    #[test]
    fn linear_layers_agree_with_the_oracle() {
        for_all(products::linears(), 48, |it| agree(&it.clone().in_bf16()));
    }

    #[test]
    fn every_number_of_rows_agrees_with_the_oracle_and_has_the_same_bits() {
        for case in products::linears_of_every_row_count() {
            agree(&case.clone().in_bf16()).unwrap();
            same_bits(&case.in_bf16()).unwrap();
        }
    }

    #[test]
    fn gated_layers_agree_with_the_oracle() {
        for_all(products::gates(), 48, |it| agree(&it.clone().in_bf16()));
    }

    #[test]
    fn heads_agree_with_the_oracle() {
        for_all(products::heads(), 48, |it| agree(&it.clone().in_bf16()));
    }

    #[test]
    fn of_equal_logits_the_lower_token_comes_first() {
        for_all(products::ties(), 32, |it| agree(&it.clone().in_bf16()));
    }

    #[test]
    fn mixtures_of_experts_agree_with_the_oracle_and_have_the_same_bits() {
        for_all(experts::mixtures(), 48, |it| agree(&it.clone().in_bf16()));
        for_all(experts::mixtures(), 24, |it| same_bits(&it.clone().in_bf16()));
    }

    #[test]
    fn linear_layers_have_the_same_bits_in_any_company() {
        for_all(products::linears(), 24, |it| same_bits(&it.clone().in_bf16()));
    }

    #[test]
    fn gated_layers_have_the_same_bits_in_any_company() {
        for_all(products::gates(), 24, |it| same_bits(&it.clone().in_bf16()));
    }

    #[test]
    fn heads_have_the_same_bits_in_any_company() {
        for_all(products::heads(), 24, |it| same_bits(&it.clone().in_bf16()));
    }

    #[test]
    fn linear_layers_of_heads_agree_with_the_oracle_and_have_the_same_bits() {
        for_all(latent::by_head(), 48, |it| agree(&it.clone().in_bf16()));
        for_all(latent::by_head(), 24, |it| same_bits(&it.clone().in_bf16()));
    }

    #[test]
    fn rounding_the_input_does_something() {
        for_all(products::linears(), 8, |it| {
            let case = it.clone().in_bf16();
            let run = |arithmetic| case.outcome(&mut Reference::computing_in(arithmetic));
            proptest::prop_assert_ne!(run(Arithmetic::Bf16), run(Arithmetic::F32));
            Ok(())
        });
    }
}
