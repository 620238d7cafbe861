//! A training's curves as a picture: a panel for each unit, samples to the right, logarithms upwards where values span
//! much.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use image::RgbImage;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::curves::Points;

/// Size of a panel, pixels.
const PANEL: [u32; 2] = [640, 340];
/// Points of a curve: about as many as there are pixels; more are averaged.
const MOST_POINTS: usize = 500;
/// Of those that tell colours apart in other ways than most (Okabe and Ito 2008), dark ones first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];
/// Of so few, each is shown.
const FEW_POINTS: usize = 30;
const FONT: &str = "sans-serif";
/// Values that span more are shown by their logarithms.
const LOGARITHMIC_FROM: f64 = 2.5;

/// Titles of the panels and the ends of the names that belong there, in the order in which they are drawn; what belongs
/// nowhere else is a loss.
const PANELS: [(&str, &str); 6] = [
    ("Loss and its parts", ""),
    ("Coordinates, lixels", "_lixel"),
    ("Cross-entropy of the heatmaps, nats", "_heatmap"),
    ("Errors on samples never learnt from, mm", "_mm"),
    ("On samples never learnt from, %", "_percent"),
    ("Samples a second", "_per_sec"),
];

/// A curve's points.
type Series = Vec<(f64, f64)>;

/// Draws all curves.
pub fn draw(points: &Points) -> Result<RgbImage> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font cannot be read"))?;
    let panels = panels(points);
    let columns = panels.len().clamp(1, 2);
    let rows = panels.len().div_ceil(columns).max(1);
    let size = (PANEL[0] * columns as u32, PANEL[1] * rows as u32);
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        area.fill(&WHITE)?;
        for ((title, curves), area) in panels.iter().zip(area.split_evenly((rows, columns))) {
            draw_panel(title, curves, &area)?;
        }
        area.present()?;
    }
    RgbImage::from_raw(size.0, size.1, pixels).context("a picture has as many pixels as its size says")
}

/// Titles and named curves of the panels that have any.
fn panels(points: &Points) -> Vec<(&'static str, Vec<(&str, Series)>)> {
    let mut panels: Vec<(_, Vec<(&str, Series)>)> = PANELS.iter().map(|(title, _)| (*title, Vec::new())).collect();
    for (samples, values) in points {
        for (name, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            let panel = PANELS.iter().rposition(|(_, end)| name.ends_with(end)).unwrap_or(0);
            let curves = &mut panels[panel].1;
            let point = (*samples as f64, *value);
            match curves.iter_mut().find(|(known, _)| known == name) {
                Some((_, curve)) => curve.push(point),
                None => curves.push((name, vec![point])),
            }
        }
    }
    panels.retain(|(_, curves)| !curves.is_empty());
    for (_, curve) in panels.iter_mut().flat_map(|(_, curves)| curves) {
        *curve = thinned(curve);
    }
    panels
}

/// Means of neighbours, if there are too many.
fn thinned(curve: &[(f64, f64)]) -> Series {
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    curve.chunks(curve.len().div_ceil(MOST_POINTS).max(1)).map(mean).collect()
}

fn draw_panel(
    title: &str,
    curves: &[(&str, Series)],
    area: &DrawingArea<BitMapBackend, plotters::coord::Shift>,
) -> Result<()> {
    let all = || curves.iter().flat_map(|(_, curve)| curve.iter().copied());
    let samples = all().map(|point| point.0).fold(1.0, f64::max);
    // The names have a third for themselves.
    let (x, y) = (Axis::from_zero_to(samples * 1.55), Axis::of(all().map(|point| point.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 19))
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc("samples")
        .x_labels(7)
        .y_labels(8)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 14))
        .bold_line_style(RGBColor(222, 222, 222))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for ((name, curve), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let series = chart.draw_series(LineSeries::new(curve.iter().copied(), style))?;
        series.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        if curve.len() <= FEW_POINTS {
            chart.draw_series(curve.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        }
    }
    let mut labels = chart.configure_series_labels();
    let labels = labels.position(SeriesLabelPosition::UpperRight).label_font((FONT, 14));
    labels.background_style(WHITE.mix(0.75)).draw()?;
    Ok(())
}

/// An axis whose ticks are round numbers.
#[derive(Clone, Debug)]
struct Axis {
    range: Range<f64>,
    logarithmic: bool,
}

impl Axis {
    fn from_zero_to(most: f64) -> Self {
        Self { range: 0.0..most, logarithmic: false }
    }

    /// That shows all of these.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > 0.0 && high / low > LOGARITHMIC_FROM {
            return Self { range: low / 1.05..high * 1.05, logarithmic: true };
        }
        let low = low.min(0.0) * 1.05;
        Self { range: low..(high.max(0.0) * 1.05).max(low + f64::MIN_POSITIVE.sqrt()), logarithmic: false }
    }

    /// At most so many round numbers in the range.
    fn ticks(&self, most: usize) -> Vec<f64> {
        if self.logarithmic {
            let decades = self.range.start.log10().floor() as i32..=self.range.end.log10().ceil() as i32;
            let of = |digits: &[u8]| -> Vec<f64> {
                let all = decades.clone().flat_map(|exp| digits.iter().map(move |d| f64::from(*d) * 10_f64.powi(exp)));
                all.filter(|tick| self.range.contains(tick)).collect()
            };
            let choices =
                [of(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), of(&[1, 2, 3, 5, 7]), of(&[1, 2, 5]), of(&[1, 3]), of(&[1])];
            if let Some(ticks) = choices.into_iter().find(|ticks| ticks.len() <= most)
                && ticks.len() > 2
            {
                return ticks;
            }
        }
        let wanted = (self.range.end - self.range.start) / most.max(1) as f64;
        let decade = 10_f64.powf(wanted.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|by| by * decade).into_iter().find(|step| *step >= wanted);
        let step = step.unwrap_or(10.0 * decade);
        let first = (self.range.start / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= self.range.end).take(most + 1).collect()
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let scale = |value: f64| if self.logarithmic { value.ln() } else { value };
        let [low, high, value] = [self.range.start, self.range.end, *value].map(scale);
        let share = (value - low) / (high - low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks(hint.max_num_points())
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let (value, unit) = match value.abs() {
            1e6.. => (value / 1e6, "M"),
            1e4.. => (value / 1e3, "k"),
            _ => (*value, ""),
        };
        if value != 0.0 && value.abs() < 1e-3 {
            return format!("{value:.0e}");
        }
        let digits = format!("{value:.4}");
        format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_that_can_be_read() {
        let read = |axis: &Axis, most| -> Vec<String> { axis.ticks(most).iter().map(|t| axis.format_ext(t)).collect() };
        assert_eq!(read(&Axis::from_zero_to(1_600_000.0), 5), ["0", "500k", "1M", "1.5M"]);
        assert_eq!(read(&Axis::of([0.02, 9.0].into_iter()), 8), ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]);
        assert_eq!(read(&Axis::of([90.0, 300.0].into_iter()), 8), ["90", "100", "200", "300"]);
        assert_eq!(read(&Axis::of([10.0, 12.0].into_iter()), 4), ["0", "5", "10"]);
        // Nothing but one value, nothing but zeros, and a range with few round numbers.
        for values in [vec![3.0], vec![0.0, 0.0], vec![1.9e-4, 6e-4], vec![-2.0, -1.0]] {
            let axis = Axis::of(values.iter().copied());
            assert!((1..=9).contains(&axis.ticks(8).len()), "{values:?}: {:?}", axis.ticks(8));
            assert!(values.iter().all(|value| axis.range.contains(value)), "{values:?} in {axis:?}");
        }
    }

    #[test]
    fn each_unit_has_its_panel_and_each_curve_its_ink() -> Result<()> {
        let mut points = Points::new();
        for i in 1..=3000_u64 {
            let values =
                [("loss", 10.0 / i as f64), ("mesh_lixel", 3.0), ("scenes_mpjpe_mm", 300.0), ("samples_per_sec", 50.0)];
            points.insert(i * 32, values.map(|(name, value)| (name.to_owned(), value)).to_vec());
        }
        points.insert(96_032, vec![("loss".to_owned(), f64::NAN)]);
        let picture = draw(&points)?;
        assert_eq!(picture.dimensions(), (2 * PANEL[0], 2 * PANEL[1]));
        let ink = |column: u32, row: u32| {
            let colour = COLOURS[0];
            let panel = image::imageops::crop_imm(&picture, column * PANEL[0], row * PANEL[1], PANEL[0], PANEL[1]);
            panel.to_image().pixels().filter(|pixel| pixel.0 == [colour.0, colour.1, colour.2]).count()
        };
        // A line of two pixels' width over two thirds of the panel.
        for (column, row) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            assert!((600..3000).contains(&ink(column, row)), "{} in panel {column} {row}", ink(column, row));
        }
        assert!(draw(&Points::new()).is_ok(), "a picture of nothing");
        Ok(())
    }
}
