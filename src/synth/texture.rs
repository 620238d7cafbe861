//! Colours and patterns: cloth, walls, floors, things. Colours are linear light, 0 to 1.

use glam::{Vec2, Vec3};

use super::random::Random;

/// A colour as people write it: red, green and blue of sRGB, 0 to 255.
pub fn srgb(rgb: [u8; 3]) -> Vec3 {
    Vec3::from_array(rgb.map(|c| (f32::from(c) / 255.0).powf(2.2)))
}

/// A colour by hue, saturation and value, all in `[0, 1]`.
pub fn hsv(hue: f32, saturation: f32, value: f32) -> Vec3 {
    let channel = |n: f32| {
        let k = (n + hue * 6.0).rem_euclid(6.0);
        let c = value * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0));
        c.powf(2.2)
    };
    Vec3::new(channel(5.0), channel(3.0), channel(1.0))
}

/// A colour that something made could have: often grey or muted, sometimes bright.
pub fn any_colour(random: &mut Random) -> Vec3 {
    let (saturation, value) = match random.below(10) {
        0..=2 => (random.between(0.0, 0.1), random.between(0.08, 0.95)),
        3..=7 => (random.between(0.15, 0.6), random.between(0.25, 0.9)),
        _ => (random.between(0.6, 0.95), random.between(0.5, 0.95)),
    };
    hsv(random.unit(), saturation, value)
}

/// A tile of smooth noise of four octaves, 0 to 1 with mean 0.5, that repeats without a seam.
#[derive(Clone, Debug)]
pub struct Noise(Vec<f32>);

/// Side of the tile.
const SIDE: usize = 256;

impl Noise {
    /// The one tile that all scenes use, at their own scales and places.
    pub fn new() -> Self {
        let mut random = Random::new(0x11E1);
        let mut tile = vec![0.5_f32; SIDE * SIDE];
        for octave in 0..4 {
            let cells = 8 << octave;
            let weight = 0.5_f32.powi(octave + 1);
            let lattice: Vec<f32> = (0..cells * cells).map(|_| random.unit() - 0.5).collect();
            let node = |x: usize, y: usize| lattice[y % cells * cells + x % cells];
            for (at, value) in tile.iter_mut().enumerate() {
                let p = Vec2::new((at % SIDE) as f32, (at / SIDE) as f32) * (cells as f32 / SIDE as f32);
                let (x, y) = (p.x as usize, p.y as usize);
                let f = p.fract_gl();
                let s = f * f * (3.0 - 2.0 * f);
                let top = node(x, y) + (node(x + 1, y) - node(x, y)) * s.x;
                let bottom = node(x, y + 1) + (node(x + 1, y + 1) - node(x, y + 1)) * s.x;
                *value += (top + (bottom - top) * s.y) * weight * 1.6;
            }
        }
        Self(tile)
    }

    /// The nearest value; the tile is smooth, and a unit of `p` is its side.
    pub fn at(&self, p: Vec2) -> f32 {
        let wrap = |v: f32| floor(v * SIDE as f32) as usize & (SIDE - 1);
        self.0[wrap(p.y) * SIDE + wrap(p.x)]
    }
}

/// The next integer below. Plain x86-64 has no instruction for it, and a call for every pixel would be half the time of
/// a picture.
fn floor(v: f32) -> i32 {
    let towards_zero = v as i32;
    towards_zero - i32::from((towards_zero as f32) > v)
}

/// The part after the point, in `[0, 1)`.
fn fract(v: f32) -> f32 {
    v - floor(v) as f32
}

/// How the colours of a texture lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One colour, a little uneven.
    Plain,
    /// Bars of both colours.
    Stripes,
    /// Thin lines on the first colour.
    Lines,
    /// A chequer board.
    Checks,
    /// Both directions of bars, half covering.
    Plaid,
    /// Round dots on the first colour.
    Dots,
    /// Patches of both colours.
    Camouflage,
    /// Clouds from one colour to the other.
    Clouds,
    /// Rows of shifted rectangles with joints of the second colour.
    Bricks,
    /// Long boards, each of its own shade.
    Boards,
}

/// A pattern in its colours.
#[derive(Clone, Debug)]
pub struct Texture {
    pattern: Pattern,
    colours: [Vec3; 2],
    /// Repetitions a metre.
    frequency: f32,
    /// Cosine and sine of its turn.
    turn: Vec2,
    shift: Vec2,
    /// How uneven it is.
    grain: f32,
}

impl Texture {
    /// A texture; `size_m` is how far the pattern goes until it repeats.
    pub fn new(pattern: Pattern, colours: [Vec3; 2], size_m: f32, random: &mut Random) -> Self {
        let turn = Vec2::from_angle(if random.chance(0.7) {
            random.below(2) as f32 * std::f32::consts::FRAC_PI_2
        } else {
            random.between(0.0, std::f32::consts::PI)
        });
        let shift = Vec2::new(random.unit(), random.unit());
        Self { pattern, colours, frequency: 1.0 / size_m, turn, shift, grain: random.between(0.05, 0.3) }
    }

    /// One colour.
    pub fn plain(colour: Vec3) -> Self {
        Self {
            pattern: Pattern::Plain,
            colours: [colour; 2],
            frequency: 1.0,
            turn: Vec2::X,
            shift: Vec2::ZERO,
            grain: 0.12,
        }
    }

    /// Its mean, roughly.
    pub fn mean(&self) -> Vec3 {
        match self.pattern {
            Pattern::Plain => self.colours[0],
            Pattern::Lines | Pattern::Dots | Pattern::Bricks => self.colours[0] * 0.8 + self.colours[1] * 0.2,
            _ => (self.colours[0] + self.colours[1]) * 0.5,
        }
    }

    /// The colour at a place in metres on a surface. `footprint_m` is how much of the surface a pixel sees: what is
    /// finer fades to the mean, as in a camera.
    pub fn at(&self, noise: &Noise, p_m: Vec2, footprint_m: f32) -> Vec3 {
        let uneven = 1.0 + self.grain * (noise.at(p_m * 0.9 + self.shift) - 0.5);
        if self.pattern == Pattern::Plain {
            return self.colours[0] * uneven;
        }
        let p = self.turn.rotate(p_m) * self.frequency + self.shift;
        let cell = Vec2::new(floor(p.x) as f32, floor(p.y) as f32);
        let f = p - cell;
        let [a, b] = self.colours;
        let either = |second: bool| if second { b } else { a };
        let colour = match self.pattern {
            Pattern::Plain => a,
            Pattern::Stripes => either(f.x < 0.5),
            Pattern::Lines => either(f.x < 0.16),
            Pattern::Checks => either((f.x < 0.5) != (f.y < 0.5)),
            Pattern::Plaid => a.lerp(b, 0.5 * f32::from(u8::from(f.x < 0.4)) + 0.5 * f32::from(u8::from(f.y < 0.4))),
            Pattern::Dots => either((f - 0.5).length_squared() < 0.07),
            Pattern::Camouflage => either(noise.at(p * 0.13) > 0.5),
            Pattern::Clouds => a.lerp(b, (noise.at(p * 0.25) * 1.6 - 0.3).clamp(0.0, 1.0)),
            Pattern::Bricks => {
                let row = floor(p.y * 2.0) as f32;
                let (x, y) = (fract(p.x + row * 0.5), fract(p.y * 2.0));
                either(x < 0.04 || y < 0.08)
            }
            Pattern::Boards => {
                let along = floor(p.y * 0.17 + cell.x * 0.37) as f32;
                let shade = noise.at(Vec2::new(cell.x * 0.137 + along * 0.31, along * 0.171));
                let grain = noise.at(Vec2::new(p.x * 0.9, p.y * 0.04));
                a.lerp(b, (shade * 0.9 + grain * 0.5 - 0.2).clamp(0.0, 1.0)) * if f.x < 0.02 { 0.6 } else { 1.0 }
            }
        };
        // From full contrast where a pixel is a quarter of the pattern to none where it is as large.
        let sharp = (1.33 - footprint_m * self.frequency * 1.33).clamp(0.0, 1.0);
        self.mean().lerp(colour, sharp) * uneven
    }
}
