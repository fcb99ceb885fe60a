//! Decoding allocates nothing once it has run, whatever the batch.
//!
//! The allocations of the whole process are counted, so this binary holds a single test.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoint::Checkpoint;
use engine::backend::Arithmetic;
use engine::backend::cpu::Isa;
use engine::{Device, Engine, Generation, LoadOptions, LogitRules, Request};
use glossary::{Edit, EditSet, TokenId};
use support::{Golden, goldens};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how often it was asked for memory.
struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// Each forward pass hands one job to rayon's pool, whose queue takes a new block for every 63 jobs. In a step that
/// opens no page of the cache that is the only allocation seen, but for the next one, which is rare.
const JOBS_PER_BLOCK: usize = 63;

/// Which thread gets which task is chance: one that has only had short contexts during the warm-up makes room for
/// more scores when it first meets a long one. The room doubles, and these contexts are short.
const GROWTHS_PER_THREAD: usize = 4;

/// On a busy machine a thread may get its very first task after the warm-up, and then makes its buffers: one for each
/// of three operations, and what registers them with the thread.
const FIRST_USE_OF_THREAD: usize = 6;

/// Tokens of an answer; the first few belong to the warm-up.
const LENGTH: usize = 120;
const WARM: usize = 3;

/// Positions of a page of the cache.
const PAGE: usize = engine::plan::PAGE;

/// A batch whose sequences all open their pages in the same steps.
struct Batch {
    name: &'static str,
    requests: Vec<Request>,
    /// Positions that each sequence has of its own before the first decoding step.
    own: usize,
}

fn batches(vocab: u32, edits: usize) -> Vec<Batch> {
    let request = |i: u32, len: u32, edit| {
        // The first token differs: nothing is shared.
        Request { tokens: (0..len).map(|j| TokenId((i + 7 * j) % vocab)).collect(), edit }
    };
    let with_head = |i: u32| {
        let head = (0..21).map(|j| TokenId(j % vocab));
        let own = [i, 1, 2, 3].map(TokenId);
        Request { tokens: head.chain(own).collect(), edit: 0 }
    };
    vec![
        Batch { name: "one sequence", requests: vec![request(3, 5, 0)], own: 5 },
        Batch { name: "without edits", requests: (0..24).map(|i| request(i, 10, 0)).collect(), own: 10 },
        Batch {
            name: "several candidates",
            requests: (0..24).map(|i| request(i, 12, i as usize % (edits + 1))).collect(),
            own: 12,
        },
        Batch { name: "a shared head", requests: (30..50).map(with_head).collect(), own: 4 },
    ]
}

/// How many allocations there were before each token of the first sequence's answer.
fn counts(engine: &mut Engine, batch: &Batch) -> Vec<usize> {
    let how = Generation { max_tokens: LENGTH, ..Generation::default() };
    let mut counts = Vec::with_capacity(LENGTH);
    engine
        .generate(&batch.requests, &how, &mut |request, _| {
            if request == 0 {
                counts.push(allocations());
            }
            false
        })
        .unwrap();
    assert_eq!(counts.len(), LENGTH);
    counts
}

/// Two candidates: an edit of every writer, and of one.
fn candidates(engine: &Engine) -> Vec<EditSet> {
    let width = engine.info().d_model;
    let edit = Edit::new(width, vec![0.1; width], vec![0.1; width], Some(vec![0.9; width])).unwrap();
    let all = || engine.info().writers.iter().map(|it| (it.writer, edit.clone()));
    vec![all().collect(), all().take(1).collect()]
}

fn check(golden: &Golden, device: Device, arithmetic: Arithmetic, threads: usize, rules: &LogitRules) {
    let checkpoint = Checkpoint::open(&golden.folder).unwrap();
    let options = LoadOptions { device, arithmetic, threads, ..LoadOptions::default() };
    let mut engine = Engine::load(&checkpoint, &options, &mut |_, _| {}).unwrap();
    if engine.info().position_limit.is_some_and(|limit| limit.positions < LENGTH) {
        return; // Dynamic rotary scaling: the model has no answers as long as these.
    }
    let sets = candidates(&engine);
    engine.set_edits(&sets).unwrap();
    engine.obey(rules.clone());
    for batch in batches(engine.info().vocab as u32, sets.len()) {
        counts(&mut engine, &batch); // warms up
        let counts = counts(&mut engine, &batch);
        let mut rest = 0;
        for token in WARM..LENGTH {
            // The step before this token computed the one before it, at this position of its own.
            let position = batch.own + token - 1;
            let new = counts[token] - counts[token - 1];
            let place =
                || format!("{}, {device:?}, {threads} threads, {}, token {token}", golden.name, batch.name);
            if position.is_multiple_of(PAGE) {
                // Each sequence may grow its list of pages, and the plan its lists of them; a layer may get a slab.
                assert!(new <= batch.requests.len() + 16, "{}: {new} allocations for new pages", place());
            } else {
                assert!(new <= 1 + threads * FIRST_USE_OF_THREAD, "{}: {new} allocations", place());
                rest += new;
            }
        }
        let most = LENGTH.div_ceil(JOBS_PER_BLOCK) + threads * (GROWTHS_PER_THREAD + FIRST_USE_OF_THREAD);
        let steps = LENGTH - WARM;
        assert!(
            rest <= most,
            "{}, {device:?}, {}: {rest} allocations in {steps} steps",
            golden.name,
            batch.name
        );
    }
}

#[test]
fn decoding_steps_that_open_no_page_allocate_nothing_but_rayons_queue() {
    let before = allocations();
    drop(black_box(Vec::<u8>::with_capacity(black_box(8))));
    assert!(allocations() > before, "allocations are counted");
    // One checkpoint of each architecture: what is counted depends on operations, not on sizes.
    let mut seen = HashSet::new();
    for golden in goldens() {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        if !seen.insert(checkpoint.config()["architectures"].to_string()) {
            continue;
        }
        // Rotary embeddings that hold for fewer positions than this needs.
        if golden.engine(Device::Cpu).info().position_limit.is_some() {
            continue;
        }
        for threads in [1, 2] {
            check(&golden, Device::Cpu, Arithmetic::F32, threads, &LogitRules::default());
        }
    }
    let goldens = goldens();
    let plain = goldens.iter().find(|it| it.name == "llama_gqa_tied").unwrap();
    for isa in Isa::available() {
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
            check(plain, Device::CpuWith(isa), arithmetic, 2, &LogitRules::default());
        }
    }
    let rules =
        serde_json::json!({"repetition_penalty": 1.1, "no_repeat_ngram_size": 9, "suppress_tokens": [5]});
    let rules = LogitRules::from_generation_config(&rules).unwrap();
    check(plain, Device::Cpu, Arithmetic::F32, 2, &rules);
}
