//! Mask R-CNN between its convolutions.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::{ALL, assert_close, dims, exact, floats, map, rounding, tensor};
use crate::lixel;
use crate::nets::Precision;
use crate::nets::cuda::detector::{self, MOST, Merged, ObjectPlan, ProposalPlan, RegionScores, RpnLevel};
use crate::nets::cuda::host::Host;
use crate::nets::cuda::kernels::{MapDims, Ptr};
use crate::nets::layers::Features;
use crate::nets::maskrcnn::box_head::{self, ScoredBox};
use crate::nets::maskrcnn::roi_align::RoiMaps;
use crate::nets::maskrcnn::rpn::{self, LevelOutput};
use crate::nets::maskrcnn::transform::{Batch, ImageSize};
use crate::nets::maskrcnn::{Config, Corners, boxes};

/// Maps of the detector's pyramid, for an input of 64 x 96.
const LEVELS: [[usize; 2]; 5] = [[16, 24], [8, 12], [4, 6], [2, 3], [1, 2]];
const PADDED: [usize; 2] = [64, 96];

#[test]
fn proposals_are_those_of_the_processor() -> Result<()> {
    let batch = 2;
    let size = ImageSize { original: [60, 90], resized: [60, 90] };
    let pixels = Tensor::zeros((batch, 3, PADDED[0], PADDED[1]), DType::F32, &Device::Cpu)?;
    let frames = Batch { pixels: pixels.into(), sizes: vec![size; batch] };
    // In coarse steps: equal scores occur in plenty. The first case wants all anchors of the coarse levels, the last
    // one wants part of a crowd of equals.
    for (precision, steps, per_level, proposals) in
        [(Precision::F32, 40.0, 100, 150), (Precision::Bf16, 8.0, 300, 1000), (Precision::F16, 0.4, 50, 40)]
    {
        let host = Host::new(precision)?;
        let config = Config { proposals_per_level: per_level, proposals, ..Config::default() };
        let mut outputs = Vec::new();
        let mut levels = Vec::new();
        for [h, w] in LEVELS {
            let objectness = (Tensor::randn(0_f32, 2.0, (batch, 3, h, w), &Device::Cpu)? * steps)?.round()?;
            let objectness = (objectness / 64.0)?;
            let deltas = exact(&[batch, 12, h, w], 1.0);
            let (objectness_map, deltas_map) = (map(&host, &objectness)?, map(&host, &deltas)?);
            levels.push(RpnLevel { objectness: objectness_map, deltas: deltas_map, dims: dims(&objectness) });
            outputs.push(LevelOutput { objectness: objectness.into(), deltas: deltas.into() });
        }
        let levels = <[RpnLevel; 5]>::try_from(levels).expect("five levels");
        let plan = ProposalPlan {
            batch,
            resized: size.resized,
            per_level,
            proposals,
            iou: config.proposal_nms_iou,
            min_side: rpn::MIN_SIDE,
        };
        let sizes = levels.map(|level| level.dims);
        let (boxes, counts) = (host.empty(batch * proposals * 16), host.empty(batch * 4));
        let memory = [
            host.upload(&ProposalPlan::table(&sizes, PADDED)),
            host.upload(rpn::cells().as_flattened()),
            host.empty(plan.scratch_bytes(&sizes)),
            boxes,
            counts,
        ];
        detector::propose(&host, &plan, &levels, memory)?;
        let plain = rpn::proposals(&outputs, &frames, &config)?;
        let counts: Vec<i32> = host.read(counts);
        let boxes: Vec<f32> = host.read(boxes);
        for (image, expected) in plain.iter().enumerate() {
            assert_eq!(counts[image] as usize, expected.len(), "{precision:?}");
            let ours = boxes[image * proposals * 4..][..proposals * 4].as_chunks::<4>().0;
            for (place, (ours, expected)) in ours.iter().zip(expected).enumerate() {
                // The exponential of another library.
                let near = ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
                assert!(near, "{precision:?}, proposal {place}: {ours:?} {expected:?}");
            }
            assert!(ours[expected.len()..].iter().all(|rest| *rest == [0.0; 4]));
        }
        assert!(plain.iter().all(|p| p.len() > 20), "there is something to compare");
    }
    Ok(())
}

#[test]
fn regions_are_aligned_as_on_the_processor() -> Result<()> {
    let size = ImageSize { original: PADDED, resized: PADDED };
    let channels = 21;
    let pyramid: Vec<Tensor> = LEVELS[..4].iter().map(|&[h, w]| exact(&[2, channels, h, w], 1.0)).collect();
    let plain = RoiMaps::new(pyramid.iter().cloned().map(Features::Plain).collect(), &[size, size])?;
    let regions: Vec<Corners> = vec![
        [3.0, 5.0, 30.0, 25.0],
        [-20.0, -30.0, 12.0, 9.0],
        [80.0, 50.0, 130.0, 120.0],
        [0.0, 0.0, 0.0, 0.0],
        [10.5, 11.5, 10.7, 60.0],
        [-200.0, -200.0, 30.0, 40.0],
        [-200.0, -200.0, 700.0, 700.0],
        [f32::NAN, 0.0, 5.0, 5.0],
    ];
    for precision in ALL {
        let host = Host::new(precision)?;
        let mut levels = Vec::new();
        for level in &pyramid {
            levels.push((map(&host, level)?, dims(level)));
        }
        let levels = <[(Ptr, MapDims); 4]>::try_from(levels).expect("four levels");
        let both = [&regions[..], &regions[..]].concat();
        for side in [7, 14] {
            let out = MapDims { batch: both.len(), height: side, width: side, channels };
            let y = host.empty_elements(out.elements());
            let at = host.upload(both.as_flattened());
            detector::roi_align(&host, &levels, 0.25, at, y, [both.len(), regions.len(), side])?;
            let ours = tensor(&host, y, out)?;
            for image in 0..2 {
                let expected = plain.align(image, &regions, side);
                let shape = (regions.len(), channels, side, side);
                let expected = Tensor::from_slice(&expected, shape, &Device::Cpu)?;
                let ours = ours.narrow(0, image * regions.len(), regions.len())?;
                assert_close(&ours, &expected, rounding(precision) + 1e-5, &format!("{precision:?} {side}"));
            }
        }
    }
    Ok(())
}

#[test]
fn regions_are_scored_by_softmax_and_their_boxes_corrected() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let (regions, classes) = (40, 7);
    let random = |shape: &[usize]| Tensor::randn(0_f32, 1.0, shape, &Device::Cpu);
    let (logits, logit_bias) = (random(&[regions, classes])?, random(&[classes])?);
    let (deltas, delta_bias) = (random(&[regions, classes * 4])?, random(&[classes * 4])?);
    let boxes: Vec<Corners> = (0..regions).map(|i| [i as f32, 3.0, i as f32 + 20.0, 3.0 + 2.0 * i as f32]).collect();
    let labels = [3_i32, 1];
    let pad = |x: &Tensor, n| floats(&x.pad_with_zeros(1, 0, n).unwrap());
    let from = RegionScores {
        logits: host.upload(&pad(&logits, 1)),
        logit_bias: host.upload(&floats(&logit_bias)),
        deltas: host.upload(&pad(&deltas, 4)),
        delta_bias: host.upload(&floats(&delta_bias)),
        regions: host.upload(boxes.as_flattened()),
        labels: host.upload(&labels),
        classes,
        logit_stride: classes + 1,
        delta_stride: classes * 4 + 4,
        label_count: labels.len(),
    };
    let y = host.empty(regions * labels.len() * 5 * 4);
    detector::score_regions(&host, from, y, regions, [50, 60])?;
    let ours: Vec<f32> = host.read(y);
    let scores = lixel::softmax(&logits.broadcast_add(&logit_bias)?)?.to_vec2::<f32>()?;
    let deltas = deltas.broadcast_add(&delta_bias)?.to_vec2::<f32>()?;
    for (i, row) in ours.as_chunks::<5>().0.iter().enumerate() {
        let (region, label) = (i / labels.len(), labels[i % labels.len()] as usize);
        let delta = [0, 1, 2, 3].map(|k| deltas[region][label * 4 + k]);
        let expected = boxes::clip(boxes::decode(boxes[region], delta, [10.0, 10.0, 5.0, 5.0]), [50, 60]);
        assert!((row[4] - scores[region][label]).abs() < 1e-6, "region {region}");
        assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "region {region}: {row:?} {expected:?}");
    }
    Ok(())
}

#[test]
fn objects_are_those_that_the_processor_chooses() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let (pictures, regions) = (2, 300);
    let random = |count: usize| floats(&Tensor::rand(0_f32, 1.0, count, &Device::Cpu).unwrap());
    for (labels, limit, threshold) in [(vec![3_u32, 7, 11], 40, 0.3), (vec![1], 500, 0.0), (vec![2, 5], 7, 0.999)] {
        // Boxes in crowds, some without sides; scores in coarse steps, so that equals occur within a label. Among the
        // labels they differ: the processor has equals of several labels in the regions' order.
        let config = Config { score_threshold: threshold, nms_iou: 0.4, max_detections: limit, ..Config::default() };
        let numbers = random(pictures * regions * labels.len() * 5);
        let mut rows = Vec::new();
        for (place, n) in numbers.as_chunks::<5>().0.iter().enumerate() {
            let [x, y, w, h] = [n[0] * 40.0, n[1] * 40.0, (n[2] * 30.0 - 1.0).max(0.0), 1.0 + n[3] * 30.0];
            let step = (n[4] * 200.0).floor() / 201.0 + (place % labels.len()) as f32 * 1e-4;
            rows.extend([x, y, x + w, y + h, step]);
        }
        rows[4] = f32::NAN;
        // The second picture has fewer regions; what lies behind them must not count.
        let counts = [regions, 150];
        let limit = limit.min(regions * labels.len());
        let plan = ObjectPlan {
            batch: pictures,
            regions,
            labels: labels.len(),
            threshold,
            min_side: box_head::MIN_SIDE,
            iou: config.nms_iou,
            limit,
        };
        let objects = Merged {
            boxes: host.empty(pictures * limit * 16),
            counts: host.empty(pictures * 4),
            scores: host.empty(pictures * limit * 4),
            lists: host.empty(pictures * limit * 4),
        };
        let memory = [host.upload(&rows), host.upload(&counts.map(|n| n as i32)), host.empty(plan.scratch_bytes())];
        detector::choose_objects(&host, &plan, memory, objects)?;
        let found: Vec<i32> = host.read(objects.counts);
        let (corners, scores): (Vec<f32>, Vec<f32>) = (host.read(objects.boxes), host.read(objects.scores));
        let lists: Vec<i32> = host.read(objects.lists);
        for picture in 0..pictures {
            let mine = &rows[picture * regions * labels.len() * 5..][..counts[picture] * labels.len() * 5];
            let one = |(place, row): (usize, &[f32; 5])| {
                let &[x0, y0, x1, y1, score] = row;
                box_head::candidate([x0, y0, x1, y1], score, labels[place % labels.len()], &config)
            };
            let expected: Vec<ScoredBox> = mine.as_chunks::<5>().0.iter().enumerate().filter_map(one).collect();
            let candidates = expected.len();
            let expected = box_head::suppress(expected, &config);
            assert_eq!(found[picture] as usize, expected.len(), "{labels:?}");
            assert!(threshold > 0.9 || expected.len() < candidates && expected.len() > 5, "there is something to do");
            for (place, expected) in expected.iter().enumerate() {
                let at = picture * limit + place;
                let ours = ScoredBox {
                    corners: [0, 1, 2, 3].map(|i| corners[at * 4 + i]),
                    score: scores[at],
                    label: labels[lists[at] as usize],
                };
                assert_eq!(ours, *expected, "{labels:?}, place {place}");
            }
            let rest = &corners[(picture * limit + expected.len()) * 4..(picture + 1) * limit * 4];
            assert!(rest.iter().all(|&edge| edge == 0.0));
        }
    }
    let wide = ObjectPlan { batch: 1, regions: MOST + 1, labels: 1, threshold: 0.0, min_side: 0.0, iou: 0.5, limit: 1 };
    let nowhere = Merged { boxes: Ptr::NULL, counts: Ptr::NULL, scores: Ptr::NULL, lists: Ptr::NULL };
    assert!(detector::choose_objects(&host, &wide, [Ptr::NULL; 3], nowhere).is_err());
    Ok(())
}
