//! Decoding allocates nothing once it has run.
//!
//! The whole process is counted, so this binary holds one test.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::{Continuation, Device, Engine, Generation, LoadOptions, Request};
use glossary::{Edit, EditSet, TokenId};
use support::{Golden, goldens};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        if std::env::var_os("X").is_some() && TRACE.load(Ordering::Relaxed) == 1 {
            TRACE.store(2, Ordering::Relaxed);
            eprintln!("{} {}", layout.size(), std::backtrace::Backtrace::force_capture());
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}
static TRACE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn x() {
    for golden in goldens() {
        for threads in [1, 2] {
            let checkpoint = checkpoint::Checkpoint::open(&golden.folder).unwrap();
            let mut engine = Engine::load(
                &checkpoint,
                &LoadOptions { device: Device::Cpu, threads, ..Default::default() },
                &mut |_, _| {},
            )
            .unwrap();
            let requests: Vec<Request> = (0..24u32)
                .map(|i| Request { tokens: (0..10).map(|j| TokenId((i + j * 7) % 60)).collect(), edit: 0 })
                .collect();
            let how = Generation { max_tokens: 100, ..Generation::default() };
            engine.generate(&requests, &how, &mut |_, _| false).unwrap();
            let mut marks = Vec::with_capacity(1000);
            engine
                .generate(&requests, &how, &mut |r, t| {
                    if r == 0 {
                        marks.push((t.len(), ALLOCATIONS.load(Ordering::Relaxed)));
                        if t.len() == 15 {
                            TRACE.store(1, Ordering::Relaxed);
                        }
                    }
                    false
                })
                .unwrap();
            let d: Vec<_> =
                marks.windows(2).map(|it| (it[1].0, it[1].1 - it[0].1)).filter(|it| it.1 > 0).collect();
            eprintln!("{} {threads}: {d:?}", golden.name);
        }
    }
}
