//! Triangles to pixels, on the processor: a z-buffer that keeps which triangle each pixel shows, so that only what is
//! seen in the end is coloured. The same seed gives the same bits on one machine with any number of threads.

use glam::{Mat3, Vec2, Vec3};

use crate::space::Intrinsics;

/// Nearer than this nothing is drawn, metres.
const NEAR_M: f32 = 0.1;

/// A camera above the ground of a world: metres, y up, the ground at y = 0, the camera looking along -z.
#[derive(Clone, Debug)]
pub struct Viewpoint {
    /// Width and height of the picture.
    pub size: [u32; 2],
    /// Focal length and principal point.
    pub intrinsics: Intrinsics,
    /// Where it is in the world.
    pub eye_m: Vec3,
    /// Turns world axes into camera axes (x right, y down, z forward).
    pub camera_from_world: Mat3,
}

impl Viewpoint {
    /// A camera at a height, looking down by `tilt_rad` and turned about its axis by `roll_rad`.
    pub fn new(size: [u32; 2], intrinsics: Intrinsics, height_m: f32, tilt_rad: f32, roll_rad: f32) -> Self {
        let upright = Mat3::from_diagonal(Vec3::new(1.0, -1.0, -1.0));
        let camera_from_world = Mat3::from_rotation_z(roll_rad) * Mat3::from_rotation_x(tilt_rad) * upright;
        Self { size, intrinsics, eye_m: Vec3::Y * height_m, camera_from_world }
    }

    /// A point of the world in camera metres.
    pub fn camera(&self, p_world_m: Vec3) -> Vec3 {
        self.camera_from_world * (p_world_m - self.eye_m)
    }

    /// A point in camera metres, in the world.
    pub fn world(&self, p_camera_m: Vec3) -> Vec3 {
        self.camera_from_world.transpose() * p_camera_m + self.eye_m
    }

    /// The direction in the world, one metre deep, in which a pixel looks.
    pub fn ray(&self, px: Vec2) -> Vec3 {
        self.camera_from_world.transpose() * self.intrinsics.camera_from_frame(px, 1.0)
    }

    /// x and y in pixels, and the inverse of the depth, 0 where it is too near.
    pub fn projected(&self, p_camera_m: Vec3) -> Vec3 {
        if p_camera_m.z < NEAR_M {
            return Vec3::ZERO;
        }
        self.intrinsics.frame_from_camera(p_camera_m).extend(p_camera_m.z.recip())
    }

    /// The world's sizes at this depth in one pixel, metres.
    pub fn footprint_m(&self, depth_m: f32) -> f32 {
        depth_m / self.intrinsics.fx
    }
}

/// Which way a triangle must look to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facing {
    /// Towards the camera: counter-clockwise seen from there.
    Front,
    /// Any.
    Both,
}

fn cross(a: Vec3, b: Vec3, x: f32, y: f32) -> f32 {
    (b.x - a.x) * (y - a.y) - (b.y - a.y) * (x - a.x)
}

/// Calls `each(pixel, inverse depth)` for all pixels whose centre a triangle covers. Corners as from
/// [`Viewpoint::projected`].
pub fn triangle(size: [u32; 2], [a, b, c]: [Vec3; 3], facing: Facing, mut each: impl FnMut(usize, f32)) {
    let area = cross(a, b, c.x, c.y);
    let turned = facing == Facing::Front && area >= 0.0;
    if turned || area == 0.0 || !area.is_finite() || a.z.min(b.z).min(c.z) <= 0.0 {
        return;
    }
    let [width, height] = size.map(|side| side as f32 - 1.0);
    let (left, right) = (a.x.min(b.x).min(c.x).max(0.0).ceil(), a.x.max(b.x).max(c.x).min(width).floor());
    let (top, bottom) = (a.y.min(b.y).min(c.y).max(0.0).ceil(), a.y.max(b.y).max(c.y).min(height).floor());
    if left > right || top > bottom {
        return;
    }
    // Weights of the three corners, which are linear in x and y.
    let scale = area.recip();
    let start = Vec3::new(cross(b, c, left, top), cross(c, a, left, top), cross(a, b, left, top)) * scale;
    let along_x = Vec3::new(b.y - c.y, c.y - a.y, a.y - b.y) * scale;
    let along_y = Vec3::new(c.x - b.x, a.x - c.x, b.x - a.x) * scale;
    let depths = Vec3::new(a.z, b.z, c.z);
    let columns = (right - left) as usize;
    for row in 0..=(bottom - top) as usize {
        let first = (top as usize + row) * size[0] as usize + left as usize;
        let mut weights = start + along_y * row as f32;
        for column in 0..=columns {
            if weights.min_element() >= 0.0 {
                each(first + column, weights.dot(depths));
            }
            weights += along_x;
        }
    }
}

/// Weights of the corners at a pixel, on the surface itself (not on the picture of it); they sum to 1.
pub fn weights([a, b, c]: [Vec3; 3], px: Vec2) -> Vec3 {
    let flat = Vec3::new(cross(b, c, px.x, px.y), cross(c, a, px.x, px.y), cross(a, b, px.x, px.y));
    let deep = flat * Vec3::new(a.z, b.z, c.z);
    let sum = deep.element_sum();
    if sum == 0.0 { Vec3::splat(1.0 / 3.0) } else { deep / sum }
}

/// A soft mask: what a shadow covers, 0 to 1.
pub struct Mask {
    size: [usize; 2],
    values: Vec<f32>,
    /// Rows and columns that are not empty: left, top, right, bottom, the last two excluded.
    bounds: [usize; 4],
}

impl Mask {
    /// Nothing.
    pub fn new([width, height]: [u32; 2]) -> Self {
        let size = [width as usize, height as usize];
        Self { size, values: vec![0.0; size[0] * size[1]], bounds: [size[0], size[1], 0, 0] }
    }

    /// Adds a triangle.
    pub fn add(&mut self, corners: [Vec3; 3]) {
        let [width, height] = self.size;
        let Self { values, bounds: [left, top, right, bottom], .. } = self;
        triangle([width as u32, height as u32], corners, Facing::Both, |at, _| {
            if values[at] == 0.0 {
                values[at] = 1.0;
                let (x, y) = (at % width, at / width);
                (*left, *top) = ((*left).min(x), (*top).min(y));
                (*right, *bottom) = ((*right).max(x + 1), (*bottom).max(y + 1));
            }
        });
    }

    /// Softens the edge by about `radius` pixels.
    pub fn soften(&mut self, radius: usize) {
        let [width, height] = self.size;
        let [left, top, right, bottom] = self.bounds;
        if left >= right || radius == 0 {
            return;
        }
        let grow = 2 * radius;
        let (left, top) = (left.saturating_sub(grow), top.saturating_sub(grow));
        let (right, bottom) = ((right + grow).min(width), (bottom + grow).min(height));
        self.bounds = [left, top, right, bottom];
        let mut line = vec![0.0; width.max(height)];
        for _ in 0..2 {
            for y in top..bottom {
                blur(&mut self.values[y * width..(y + 1) * width], left, right - left, 1, radius, &mut line);
            }
            for x in left..right {
                blur(&mut self.values[x..], top, bottom - top, width, radius, &mut line);
            }
        }
    }

    /// Its pixels that are not 0.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f32)> {
        let [left, top, right, bottom] = self.bounds;
        let width = self.size[0];
        let pixels = (top..bottom).flat_map(move |y| (left..right).map(move |x| y * width + x));
        pixels.map(|at| (at, self.values[at])).filter(|(_, value)| *value > 0.0)
    }
}

/// Running mean over `2 radius + 1` values, of `count` ones that lie `stride` apart from the `first` on.
fn blur(values: &mut [f32], first: usize, count: usize, stride: usize, radius: usize, line: &mut [f32]) {
    for (i, value) in line[..count].iter_mut().enumerate() {
        *value = values[(first + i) * stride];
    }
    let scale = 1.0 / (2 * radius + 1) as f32;
    let mut sum: f32 = line[..count.min(radius)].iter().sum();
    for i in 0..count {
        if i + radius < count {
            sum += line[i + radius];
        }
        if i > radius {
            sum -= line[i - radius - 1];
        }
        values[(first + i) * stride] = (sum * scale).clamp(0.0, 1.0);
    }
}
