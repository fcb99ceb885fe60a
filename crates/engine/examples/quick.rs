//! temporary
use engine::*;
use std::time::Instant;
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let isa = *backend::cpu::Isa::available().last().unwrap();
    println!("{:?}", backend::cpu::Machine::measure(isa, 2).unwrap());
    let c = checkpoint::Checkpoint::open(path.as_ref()).unwrap();
    let t = Instant::now();
    let mut e = Engine::load(&c, &LoadOptions { threads: 2, ..Default::default() }, &mut |_, _| {}).unwrap();
    println!("load {:?} {:?}", t.elapsed(), e.info().dtype);
    let m = backend::cpu::Machine::measure(isa, 2).unwrap();
    println!("{m:?}");
    let req: Vec<Request> = (0..100u32).map(|i| Request { tokens: (0..40u32).map(|j| glossary::TokenId((i * 977 + j * 131) % 49000)).collect(), edit: 0 }).collect();
    let w = e.info().block_weights as f64; let h = e.info().head_weights as f64;
    for _ in 0..3 {
        e.take_times();
        let t = Instant::now();
        e.generate(&req, &Generation { max_tokens: 0, ..Default::default() }, &mut |_, _| false).unwrap();
        let dt = t.elapsed().as_secs_f64();
        println!("prefill {:.1} tok/s, {:.3} of peak, {:?}", 4000.0 / dt, (4000.0 * w + 100.0 * h) * 2.0 / dt / 1e9 / m.product_gflops, e.take_times());
        let t = Instant::now();
        e.generate(&req, &Generation { max_tokens: 100, ..Default::default() }, &mut |_, _| false).unwrap();
        let dt2 = t.elapsed().as_secs_f64() - dt;
        println!("decode {:.1} tok/s, {:.3} of peak, answers/s {:.1} {:?}", 9900.0 / dt2, 9900.0 * (w + h) * 2.0 / dt2 / 1e9 / m.product_gflops, 10000.0/(dt2+dt), e.take_times());
    }
}
