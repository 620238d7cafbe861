//! The pixels of a person, as COCO writes them: runs, packed runs, polygons.

use anyhow::{Context, Result, bail, ensure};

use super::format::{Counts, Segmentation};

/// Corners of a polygon; drawn ones have some hundred.
const MAX_CORNERS: usize = 50_000;

/// Writes `value` into all pixels of a person. `pixels` lie row by row, of a picture of this width and height.
pub fn paint(segmentation: &Segmentation, [width, height]: [u32; 2], value: u8, pixels: &mut [u8]) -> Result<()> {
    match segmentation {
        Segmentation::Runs { size, counts } => {
            ensure!(*size == [height, width], "a mask of {size:?} (height, width) for {width}x{height} pixels");
            let unpacked;
            let counts = match counts {
                Counts::Plain(counts) => counts,
                Counts::Packed(text) => {
                    unpacked = unpack(text)?;
                    &unpacked
                }
            };
            let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
            ensure!(total == pixels.len() as u64, "the mask's runs are {total} pixels long, not {}", pixels.len());
            let (columns, rows) = (width as usize, height as usize);
            let mut first = 0;
            for (run, &count) in counts.iter().enumerate() {
                let end = first + count as usize;
                if run % 2 == 1 {
                    (first..end).for_each(|at| pixels[at % rows * columns + at / rows] = value);
                }
                first = end;
            }
        }
        Segmentation::Polygons(polygons) => {
            for polygon in polygons {
                fill(polygon, [width, height], value, pixels)?;
            }
        }
    }
    Ok(())
}

/// COCO's packing of runs: six bits a character from '0' on, five of them data, low ones first; from the fourth run on
/// the difference to the last but one.
fn unpack(text: &str) -> Result<Vec<u32>> {
    let mut counts: Vec<u32> = Vec::new();
    let mut bytes = text.bytes();
    while let Some(mut byte) = bytes.next() {
        let (mut value, mut shift) = (0_i64, 0);
        loop {
            ensure!((48..112).contains(&byte) && shift < 40, "the packed mask is damaged");
            let bits = i64::from(byte - 48);
            value |= (bits & 0x1f) << shift;
            shift += 5;
            if bits & 0x20 == 0 {
                if bits & 0x10 != 0 {
                    value |= -1 << shift;
                }
                break;
            }
            byte = bytes.next().context("the packed mask ends too early")?;
        }
        if counts.len() > 2 {
            value += i64::from(counts[counts.len() - 2]);
        }
        counts.push(u32::try_from(value).context("the packed mask is damaged")?);
    }
    Ok(counts)
}

/// All pixels whose centre is inside.
fn fill(polygon: &[f32], [width, height]: [u32; 2], value: u8, pixels: &mut [u8]) -> Result<()> {
    let (corners, rest) = polygon.as_chunks::<2>();
    if !rest.is_empty() || corners.len() > MAX_CORNERS || polygon.iter().any(|v| !v.is_finite()) {
        bail!("the mask's polygon of {} numbers is none", polygon.len());
    }
    let Some(last) = corners.last() else { return Ok(()) };
    let mut crossings = Vec::new();
    for (row, pixels) in pixels.chunks_exact_mut(width.max(1) as usize).take(height as usize).enumerate() {
        let y = row as f32 + 0.5;
        crossings.clear();
        let mut from = last;
        for to in corners {
            if (from[1] <= y) != (to[1] <= y) {
                crossings.push(from[0] + (y - from[1]) / (to[1] - from[1]) * (to[0] - from[0]));
            }
            from = to;
        }
        crossings.sort_by(f32::total_cmp);
        for inside in crossings.as_chunks::<2>().0 {
            // Centres are at half pixels; a conversion from a float stops at 0.
            let [first, end] = inside.map(|x| ((x - 0.5).ceil() as usize).min(pixels.len()));
            pixels[first..end.max(first)].fill(value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(json: &str, size: [u32; 2]) -> Result<Vec<u8>> {
        let mut pixels = vec![0; (size[0] * size[1]) as usize];
        paint(&serde_json::from_str(json)?, size, 1, &mut pixels)?;
        Ok(pixels)
    }

    #[test]
    fn the_three_ways_to_write_a_mask_give_the_same_pixels() {
        // 4 columns, 3 rows: rows 1 and 2 of columns 1 and 2.
        let expected = [0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0];
        let size = [4, 3];
        assert_eq!(painted(r#"{"size": [3, 4], "counts": [4, 2, 1, 2, 3]}"#, size).unwrap(), expected);
        assert_eq!(painted("[[1, 1, 3, 1, 3, 3, 1, 3]]", size).unwrap(), expected);
        // Packed: 4, 2, 1, then 2 - 2 = 0 and 3 - 1 = 2.
        assert_eq!(painted(r#"{"size": [3, 4], "counts": "42102"}"#, size).unwrap(), expected);
        // 100 is two characters, 4 + 32 and 3; a difference of -1 has its sign bit set.
        assert_eq!(unpack("T3").unwrap(), [100]);
        assert_eq!(unpack("555O").unwrap(), [5, 5, 5, 4]);
        assert_eq!(painted("[]", size).unwrap(), [0; 12]);
    }

    #[test]
    fn damaged_masks_are_refused() {
        for bad in [
            r#"{"size": [4, 3], "counts": [12]}"#,
            r#"{"size": [3, 4], "counts": [11]}"#,
            r#"{"size": [3, 4], "counts": [4294967295, 4294967295]}"#,
            r#"{"size": [3, 4], "counts": "4~"}"#,
            r#"{"size": [3, 4], "counts": "TTTTTTTTTTTTTTTTTTTT"}"#,
            r#"{"size": [3, 4], "counts": "O"}"#,
            "[[1, 1, 3]]",
        ] {
            assert!(painted(bad, [4, 3]).is_err(), "{bad}");
        }
        // Beyond the picture there is nothing to paint.
        assert_eq!(painted("[[-1e30, -1e30, 1e30, -1e30, 1e30, 1e30, -1e30, 1e30]]", [2, 2]).unwrap(), [1; 4]);
    }
}
