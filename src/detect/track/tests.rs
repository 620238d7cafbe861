use super::*;

fn person(x: f32, y: f32, w: f32, h: f32) -> PersonBox {
    PersonBox { rect: RectPx { x, y, w, h }, score: 0.9 }
}

fn weak(x: f32, y: f32, w: f32, h: f32) -> PersonBox {
    PersonBox { score: 0.35, ..person(x, y, w, h) }
}

fn ids(tracker: &Tracker) -> Vec<u32> {
    let mut ids: Vec<u32> = tracker.people().iter().map(|p| p.id).collect();
    ids.sort_unstable();
    ids
}

/// The person whose centre is nearest to `x`.
fn id_at(tracker: &Tracker, x: f32) -> Option<u32> {
    let distance = |p: &TrackedPerson| (p.rect.centre().x - x).abs();
    tracker.people().into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|p| p.id)
}

/// One frame on which the detector runs.
fn step(tracker: &mut Tracker, frame: u64, detections: &[PersonBox]) {
    tracker.predict(frame);
    tracker.update_from_detections(detections);
}

/// A few pixels of deterministic jitter.
fn jitter(t: u64) -> f32 {
    ((t * 37 % 11) as f32 - 5.0) * 0.4
}

#[test]
fn people_who_cross_keep_their_ids() {
    // Two people of the same size walk through each other; while they overlap, suppression leaves one box.
    for speed in [2.0, 4.0, 7.0] {
        let mut tracker = Tracker::default();
        let frames = (400.0 / speed) as u64;
        for t in 0..=frames {
            let (a, b) = (speed * t as f32, 400.0 - speed * t as f32);
            let boxes = [person(a + jitter(t), 50.0, 60.0, 160.0), person(b - jitter(t), 54.0, 60.0, 160.0)];
            let hidden = boxes[0].rect.iou(&boxes[1].rect) > 0.5;
            step(&mut tracker, t, if hidden { &boxes[..1] } else { &boxes });
            assert!(tracker.people().len() <= 2);
        }
        assert_eq!(id_at(&tracker, 430.0), Some(0), "speed {speed}");
        assert_eq!(id_at(&tracker, 30.0), Some(1), "speed {speed}");
        assert_eq!(tracker.next_id, 2, "nobody new, speed {speed}");
    }
}

#[test]
fn a_missed_detection_changes_nothing() {
    let mut tracker = Tracker::default();
    for t in 0..20 {
        let seen = [person(100.0 + 3.0 * t as f32, 80.0, 50.0, 140.0)];
        step(&mut tracker, t, if t % 5 == 4 { &[] } else { &seen });
        let people = tracker.people();
        assert_eq!(people.len(), 1, "still shown on frame {t}");
        assert_eq!(people[0].id, 0);
        assert!(people[0].rect.iou(&seen[0].rect) > 0.8, "frame {t}: {:?}", people[0].rect);
    }
}

#[test]
fn a_person_unseen_for_longer_is_hidden_and_comes_back_with_the_id() {
    let mut tracker = Tracker::default();
    let seen = [person(100.0, 80.0, 50.0, 140.0)];
    step(&mut tracker, 0, &seen);
    for t in 1..=5 {
        step(&mut tracker, t, &[]);
        assert_eq!(tracker.people().len(), usize::from(t < 2), "frame {t}");
    }
    step(&mut tracker, 6, &seen);
    assert_eq!(ids(&tracker), [0]);
    for t in 7..=15 {
        step(&mut tracker, t, &[]);
    }
    step(&mut tracker, 16, &seen);
    assert_eq!(ids(&tracker), [1], "forgotten after 8 rounds, and the id is not used again");
}

#[test]
fn one_leaves_and_another_enters() {
    let mut tracker = Tracker::default();
    let staying = person(300.0, 60.0, 60.0, 170.0);
    for t in 0..10 {
        step(&mut tracker, t, &[staying, person(540.0 + 8.0 * t as f32, 50.0, 60.0, 160.0)]);
    }
    assert_eq!(ids(&tracker), [0, 1]);
    step(&mut tracker, 10, &[staying]);
    step(&mut tracker, 11, &[staying, person(5.0, 50.0, 60.0, 160.0)]);
    assert_eq!(id_at(&tracker, 35.0), Some(2), "somebody else, on the first frame");
    assert_eq!(id_at(&tracker, 330.0), Some(0));
    assert_eq!(ids(&tracker), [0, 2]);
}

#[test]
fn boxes_follow_people_between_detections() {
    // Stride 4, 9 pixels a frame: more than half a width between two detections.
    let truth = |t: u64| person(40.0 + 9.0 * t as f32, 60.0 + t as f32, 60.0, 160.0);
    for with_pose in [false, true] {
        let mut tracker = Tracker::default();
        for t in 0..60u64 {
            tracker.predict(t);
            if t % 4 == 0 {
                tracker.update_from_detections(&[truth(t)]);
            }
            let people = tracker.people();
            assert_eq!((people.len(), people[0].id), (1, 0));
            // The motion is known after the second detection.
            let iou = people[0].rect.iou(&truth(t).rect);
            assert!(t < 8 || iou > 0.75, "frame {t}, pose {with_pose}: {iou}");
            if with_pose {
                assert!(t < 8 || iou > 0.9, "frame {t}: {iou}");
                let body = truth(t).rect;
                // The body's box is a little smaller than the detector's.
                tracker.update_from_pose(0, RectPx { x: body.x + 2.0, y: body.y + 4.0, w: 55.0, h: 152.0 });
            }
        }
    }
}

#[test]
fn a_fast_start_is_not_a_new_person() {
    // Nothing is known of the motion yet, and the second box does not touch the first.
    let mut tracker = Tracker::default();
    for t in 0..5 {
        step(&mut tracker, 4 * t, &[person(40.0 + 70.0 * t as f32, 60.0, 60.0, 160.0)]);
        assert_eq!(ids(&tracker), [0], "round {t}");
    }
}

#[test]
fn degenerate_boxes_are_ignored() {
    let good = person(10.0, 20.0, 30.0, 80.0);
    let mut tracker = Tracker::default();
    let bad = [
        person(f32::NAN, 0.0, 10.0, 10.0),
        person(0.0, 0.0, f32::INFINITY, 10.0),
        person(0.0, 0.0, 0.0, 10.0),
        person(0.0, 0.0, -5.0, 10.0),
        person(0.0, 0.0, 1e-20, 1e-20),
        person(1e30, 0.0, 1e30, 1e30),
        PersonBox { score: f32::NAN, ..good },
    ];
    for t in 0..20 {
        let mut boxes = bad.to_vec();
        boxes.push(good);
        step(&mut tracker, t, &boxes);
        for b in bad {
            tracker.update_from_pose(0, b.rect);
        }
        tracker.update_from_pose(77, good.rect);
    }
    let people = tracker.people();
    assert_eq!(people.len(), 1);
    assert!(people[0].rect.iou(&good.rect) > 0.99);
    tracker.predict(u64::MAX);
    assert!(tracker.people()[0].rect.is_valid());
}

#[test]
fn a_hundred_people_are_kept_apart() {
    let mut tracker = Tracker::default();
    let boxes = |t: u64| -> Vec<PersonBox> {
        (0..100)
            .map(|i: u64| {
                let (row, column) = ((i / 10) as f32, (i % 10) as f32);
                person(column * 90.0 + 3.0 * t as f32 + jitter(i + t), row * 130.0, 50.0, 120.0)
            })
            .collect()
    };
    step(&mut tracker, 0, &boxes(0));
    let first = tracker.people();
    assert_eq!(first.len(), 100);
    for t in 1..12 {
        let mut shuffled = boxes(4 * t);
        shuffled.rotate_left(t as usize * 17 % 100);
        step(&mut tracker, 4 * t, &shuffled);
    }
    assert_eq!(ids(&tracker), (0..100).collect::<Vec<u32>>());
    let last = boxes(44);
    for p in tracker.people() {
        assert!(p.rect.iou(&last[p.id as usize].rect) > 0.85, "person {}", p.id);
    }
}

#[test]
fn two_tracks_on_one_person_become_one() {
    let mut tracker = Tracker::default();
    step(&mut tracker, 0, &[person(100.0, 50.0, 60.0, 160.0), person(150.0, 50.0, 60.0, 160.0)]);
    // The second body is mistaken for the first one, step by step.
    for t in 1..16 {
        tracker.predict(t);
        if t % 4 == 0 {
            tracker.update_from_detections(&[person(100.0, 50.0, 60.0, 160.0)]);
        }
        let x = (150.0 - 10.0 * t as f32).max(100.0);
        tracker.update_from_pose(1, RectPx { x, y: 50.0, w: 60.0, h: 160.0 });
        tracker.update_from_pose(0, RectPx { x: 100.0, y: 50.0, w: 60.0, h: 160.0 });
    }
    assert_eq!(ids(&tracker), [0]);
    // A weak second box around the same person does not bring the copy back, and in the end it is forgotten.
    for t in 4..60 {
        step(&mut tracker, 4 * t, &[person(100.0, 50.0, 60.0, 160.0), weak(104.0, 60.0, 60.0, 120.0)]);
        assert_eq!(ids(&tracker), [0]);
    }
    assert_eq!(tracker.tracks.len(), 1);
}

#[test]
fn two_boxes_of_one_person_make_one_track() {
    let mut tracker = Tracker::default();
    step(&mut tracker, 0, &[person(100.0, 50.0, 60.0, 160.0), person(102.0, 51.0, 60.0, 160.0)]);
    assert_eq!(ids(&tracker), [0]);
}

#[test]
fn weak_detections_keep_people_but_begin_none() {
    let mut tracker = Tracker::default();
    step(&mut tracker, 0, &[weak(100.0, 50.0, 60.0, 160.0)]);
    assert!(tracker.people().is_empty());
    step(&mut tracker, 1, &[person(100.0, 50.0, 60.0, 160.0)]);
    for t in 2..20 {
        step(&mut tracker, t, &[weak(100.0, 50.0, 60.0, 160.0), weak(400.0, 50.0, 60.0, 160.0)]);
        assert_eq!(ids(&tracker), [0]);
    }
    assert_eq!(tracker.people()[0].score, 0.35);
}

#[test]
fn an_impossible_pose_is_not_believed() {
    let mut tracker = Tracker::default();
    step(&mut tracker, 0, &[person(100.0, 50.0, 60.0, 160.0)]);
    let before = tracker.people();
    tracker.update_from_pose(0, RectPx { x: 400.0, y: 50.0, w: 60.0, h: 160.0 });
    tracker.update_from_pose(0, RectPx { x: 120.0, y: 80.0, w: 5.0, h: 5.0 });
    assert_eq!(tracker.people(), before);
}

#[test]
fn the_same_frame_again_moves_nobody_and_an_earlier_one_starts_anew() {
    let mut tracker = Tracker::default();
    for t in 0..5 {
        step(&mut tracker, t, &[person(100.0 + 10.0 * t as f32, 50.0, 60.0, 160.0)]);
    }
    let before = tracker.people();
    tracker.predict(4);
    assert_eq!(tracker.people(), before);
    step(&mut tracker, 0, &[person(100.0, 50.0, 60.0, 160.0)]);
    assert_eq!(ids(&tracker), [1]);
}

#[test]
fn a_seen_person_has_the_detectors_box() {
    let mut tracker = Tracker::default();
    for t in 0..9 {
        let seen = person(100.0 + 3.0 * t as f32 + jitter(t), 50.0 + jitter(t + 3), 60.0, 160.0 + jitter(t));
        step(&mut tracker, t, &[seen]);
        tracker.update_from_pose(0, RectPx { x: 105.0, ..seen.rect });
        assert_eq!(tracker.people(), [TrackedPerson { id: 0, rect: seen.rect, score: 0.9 }]);
    }
}

#[test]
fn boxes_do_not_shrink_to_the_body_between_detections() {
    // The body's box is always 20 % narrower and 10 % lower; one detection, then bodies only.
    let mut tracker = Tracker::default();
    let detected = person(100.0, 50.0, 60.0, 160.0);
    step(&mut tracker, 0, &[detected]);
    for t in 0..40 {
        tracker.predict(t);
        let rect = tracker.people()[0].rect;
        assert!(rect.iou(&detected.rect) > 0.97, "frame {t}: {rect:?}");
        tracker.update_from_pose(0, RectPx { x: 106.0, y: 58.0, w: 48.0, h: 144.0 });
    }
}
