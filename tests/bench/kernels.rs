//! Times of the CPU kernels and of the networks' trunks that are made of them, beside candle's plain operations:
//!
//! ```text
//! cargo bench --bench kernels               # everything
//! cargo bench --bench kernels -- resnet     # what has this in its name; "resnet50 1x256x256 fast" is one line
//! RAYON_NUM_THREADS=1 cargo bench --bench kernels
//! ```
//!
//! Each line: the least and the median time; on Linux the time on a processor, all threads together, which tells more
//! than the clock on a machine that has other things to do; GFLOP/s at the least time and its share of the machine's
//! measured peak, or for what moves memory and computes little ([`seams`]) the GB/s of what it must read and write. The
//! operations are those of the plain algorithm, so Winograd's layers may pass 100 %.
//!
//! The clock is not criterion's or divan's: they time one way after the other, so that what the machine does meanwhile
//! lands on one of them; here the ways take turns, and their ratio can be trusted where their times cannot.

mod seams;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use lixelscope::nets::kernels::{Finish, Isa, Map, PackedConv, PackedDeconv, Winograd, WinogradDeconv, peak_gflops};
use lixelscope::nets::layers::{Activation, BN_EPS, Conv2d, ConvShape, DeconvStack, Features, Linear, Pointwise1d};
use lixelscope::nets::resnet::{Depth, Stages, Stem};

/// One of several ways to do the same.
type Way<'a> = (&'a str, &'a mut dyn FnMut() -> Result<()>);

/// What a way has to do.
#[derive(Clone, Copy)]
enum Work {
    /// Operations of the plain algorithm, 10^9.
    Gflop(f64),
    /// What must be read and written at least.
    Bytes(usize),
}

struct Bench {
    wanted: Option<String>,
    peak: f64,
}

impl Bench {
    /// Runs all `ways` in turn, so that noise meets all alike, for a second or so.
    fn compare(&self, name: &str, work: Work, ways: &mut [Way]) -> Result<()> {
        let is_wanted =
            |way: &Way| self.wanted.as_ref().is_none_or(|wanted| format!("{name} {}", way.0).contains(wanted));
        let mut ways: Vec<_> = ways.iter_mut().filter(|way| is_wanted(way)).collect();
        if ways.is_empty() {
            return Ok(());
        }
        let mut times = vec![Vec::new(); ways.len()];
        let mut on_cpu = vec![0.0; ways.len()];
        for (_, run) in &mut ways {
            run()?; // Packs weights, takes memory.
        }
        let start = Instant::now();
        while times[0].len() < 5 || (start.elapsed() < Duration::from_secs(1) && times[0].len() < 200) {
            for (((_, run), times), on_cpu) in ways.iter_mut().zip(&mut times).zip(&mut on_cpu) {
                let (start, cpu_start) = (Instant::now(), cpu_secs());
                run()?;
                times.push(start.elapsed().as_secs_f64());
                *on_cpu += cpu_secs() - cpu_start;
            }
        }
        for (((way, _), times), on_cpu) in ways.iter().zip(&mut times).zip(on_cpu) {
            times.sort_by(f64::total_cmp);
            let (least, median) = (times[0], times[times.len() / 2]);
            let rate = match work {
                Work::Gflop(gflop) => {
                    format!("{:7.1} GFLOP/s  {:4.0} %", gflop / least, gflop / least / self.peak * 100.0)
                }
                Work::Bytes(bytes) => format!("{:7.2} GB/s", bytes as f64 / least / 1e9),
            };
            println!(
                "{name:<34} {way:<9} {:9.3} ms  median {:9.3}  cpu {:9.3}  {rate}",
                least * 1e3,
                median * 1e3,
                on_cpu / times.len() as f64 * 1e3,
            );
        }
        Ok(())
    }
}

/// Time that the threads of this process have spent on a processor; 0 where the system does not tell.
fn cpu_secs() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = |task: std::fs::DirEntry| -> Option<f64> {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    tasks.filter_map(nanos).sum::<f64>() / 1e9
}

/// What `load` asks for, with random weights that keep the activations' size: the fast way, and candle's, which
/// weights that are variables go.
fn load_both<T>(load: impl Fn(&VarBuilder) -> Result<T>) -> Result<[T; 2]> {
    let map = VarMap::new();
    load(&VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let (mut fast, mut plain) = (HashMap::new(), HashMap::new());
    for (name, var) in map.data().lock().expect("nobody panicked with the lock").iter() {
        let fan_in: usize = var.dims().iter().skip(1).product();
        let random = if var.rank() > 1 {
            Tensor::randn(0_f32, (2.0 / fan_in as f32).sqrt(), var.dims(), &Device::Cpu)?
        } else {
            Tensor::rand(0.4_f32, 0.6, var.dims(), &Device::Cpu)?
        };
        plain.insert(name.clone(), Var::from_tensor(&random)?.into_inner());
        fast.insert(name.clone(), random);
    }
    let load = |tensors| load(&VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu));
    Ok([load(fast)?, load(plain)?])
}

fn random(shape: [usize; 4]) -> Result<Tensor> {
    Tensor::rand(0_f32, 1.0, &shape, &Device::Cpu)
}

fn layer(bench: &Bench, input: usize, output: usize, kernel: usize, stride: usize, side: usize) -> Result<()> {
    let x: Vec<f32> = random([1, input, side, side])?.flatten_all()?.to_vec1()?;
    let w: Vec<f32> = random([output, input, kernel, kernel])?.flatten_all()?.to_vec1()?;
    let bias = vec![0.1; output];
    let shape = [1, input, side, side];
    let map = Map::from_planar(shape, &x);
    let padding = kernel / 2;
    let out_side = (side + 2 * padding - kernel) / stride + 1;
    let gflop = 2.0 * (input * output * kernel * kernel * out_side * out_side) as f64 / 1e9;
    let finish = Finish { residual: None, relu: true };
    let name = format!("{kernel}x{kernel}/{stride} {input} -> {output}, {side}x{side}");
    let isas: Vec<_> = Isa::available().collect();
    let convs: Vec<_> = isas
        .iter()
        .map(|&isa| PackedConv::new(isa, [output, input, kernel], [stride, padding], &w, Some(&bias)))
        .collect();
    let mut runs: Vec<_> = convs
        .iter()
        .map(|conv| {
            || {
                if input <= PackedConv::FEW_CHANNELS {
                    conv.run_planes(shape, &x, finish);
                } else {
                    conv.run(&map, finish);
                }
                Ok(())
            }
        })
        .collect();
    let names: Vec<_> = isas.iter().map(|isa| format!("{isa:?}")).collect();
    let mut ways: Vec<Way> = Vec::new();
    for (name, run) in names.iter().zip(&mut runs) {
        ways.push((name, run));
    }
    let winograd = (kernel == 3 && stride == 1).then(|| Winograd::new(isas[0], [output, input], 1, &w, Some(&bias)));
    let mut run_winograd = winograd.as_ref().map(|winograd| {
        || {
            winograd.run(&map, finish);
            Ok(())
        }
    });
    if let Some(run) = &mut run_winograd {
        ways.push(("Winograd", run));
    }
    bench.compare(&name, Work::Gflop(gflop), &mut ways)
}

fn deconv(bench: &Bench, input: usize, side: usize) -> Result<()> {
    let x: Vec<f32> = random([1, input, side, side])?.flatten_all()?.to_vec1()?;
    let w: Vec<f32> = random([input, 256, 4, 4])?.flatten_all()?.to_vec1()?;
    let map = Map::from_planar([1, input, side, side], &x);
    let direct = PackedDeconv::new(Isa::detect(), [input, 256], &w, &[0.1; 256]);
    let winograd = WinogradDeconv::new(Isa::detect(), [input, 256], &w, &[0.1; 256]);
    let gflop = 2.0 * (input * 256 * 16 * side * side) as f64 / 1e9;
    let mut run_direct = || {
        direct.run(&map, true);
        Ok(())
    };
    let mut run_winograd = || {
        winograd.run(&map, true);
        Ok(())
    };
    let name = format!("deconv {input} -> 256, {side}x{side}");
    bench.compare(&name, Work::Gflop(gflop), &mut [("direct", &mut run_direct), ("Winograd", &mut run_winograd)])
}

/// A network or a part of one, both ways.
fn network<T>(
    bench: &Bench,
    name: &str,
    gflop: f64,
    [fast, plain]: &[T; 2],
    run: impl Fn(&T) -> Result<()>,
) -> Result<()> {
    let mut run_fast = || run(fast);
    let mut run_plain = || run(plain);
    bench.compare(name, Work::Gflop(gflop), &mut [("fast", &mut run_fast), ("plain", &mut run_plain)])
}

fn main() -> Result<()> {
    // Cargo passes --bench.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let isa = Isa::detect();
    let peak = peak_gflops(isa);
    println!("{isa:?}, {} threads, peak {peak:.1} GFLOP/s", rayon::current_num_threads());
    let bench = Bench { wanted, peak };

    layer(&bench, 3, 64, 7, 2, 256)?;
    for (width, side) in [(64, 64), (128, 32), (256, 16), (512, 8)] {
        layer(&bench, width * 4, width, 1, 1, side)?;
        layer(&bench, width, width, 3, 1, side)?;
        layer(&bench, width, width * 4, 1, 1, side)?;
        layer(&bench, width, width, 3, 2, side * 2)?;
    }
    for (input, side) in [(2048, 8), (256, 16), (256, 32)] {
        deconv(&bench, input, side)?;
    }

    let depth = Depth::new(50).expect("50");
    let resnet = load_both(|vb| Ok((Stem::load(64, BN_EPS, vb)?, Stages::load(depth, BN_EPS, vb)?)))?;
    for (batch, height, width) in [(1, 256, 256), (4, 256, 256), (1, 320, 448), (1, 800, 1088)] {
        // 4.11 G multiply-adds at 224 x 224, without the classifier's 2 M.
        let gflop = 2.0 * 4.087 * (batch * height * width) as f64 / (224.0 * 224.0);
        let x = random([batch, 3, height, width])?;
        let name = format!("resnet50 {batch}x{height}x{width}");
        network(&bench, &name, gflop, &resnet, |(stem, stages)| stages.run(&stem.run(&x)?).map(drop))?;
    }

    let stack = load_both(|vb| DeconvStack::load([2048, 256], 8, vb))?;
    for batch in [1, 4] {
        let gflop = 2.0 * (batch * (2048 * 64 + 256 * 256 + 256 * 1024) * 256 * 16) as f64 / 1e9;
        let x = Features::new(&random([batch, 2048, 8, 8])?)?;
        network(&bench, &format!("deconv stack x{batch}"), gflop, &stack, |stack| stack.run(&x).map(drop))?;
    }

    let conv = |shape: ConvShape| load_both(|vb| Conv2d::load(shape, true, None, Activation::Relu, vb));
    let fpn = conv(ConvShape::same(256, 256, 3))?;
    let maps = [(1, 200, 272), (1, 100, 136), (1, 50, 68), (1, 25, 34), (8, 14, 14)];
    for (batch, height, width) in maps {
        let gflop = 2.0 * (256 * 256 * 9 * batch * height * width) as f64 / 1e9;
        let x = Features::new(&random([batch, 256, height, width])?)?;
        network(&bench, &format!("fpn 256 -> 256, {batch}x{height}x{width}"), gflop, &fpn, |fpn| {
            fpn.run(&x, None).map(drop)
        })?;
    }

    for (input, output, length) in [(256, 6890, 64), (2048, 16_384, 1)] {
        let head = load_both(|vb| Pointwise1d::load(input, output, None, Activation::None, vb))?;
        let x = random([1, 1, input, length])?.squeeze(0)?;
        let gflop = 2.0 * (input * output * length) as f64 / 1e9;
        let name = format!("head {input} -> {output}, {length}");
        network(&bench, &name, gflop, &head, |head| head.forward(&x).map(drop))?;
    }

    let linear = load_both(|vb| Linear::load(12_544, 1024, None, Activation::Relu, vb))?;
    for count in [100, 1000] {
        let x = random([1, 1, count, 12_544])?.flatten_to(2)?;
        let gflop = 2.0 * (count * 12_544 * 1024) as f64 / 1e9;
        let name = format!("box head {count} x 12544 -> 1024");
        network(&bench, &name, gflop, &linear, |linear| linear.forward(&x).map(drop))?;
    }
    seams::run(&bench)
}
