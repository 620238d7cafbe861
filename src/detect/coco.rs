//! The classes of COCO as torchvision's checkpoints number them: 91 places, of which 80 are classes.

use anyhow::{Result, bail};

/// The label of people.
pub const PERSON: u32 = 1;

/// A place that COCO's final data set never used.
const UNUSED: &str = "N/A";

/// Name of each label; label 0 is the background.
#[rustfmt::skip]
pub const NAMES: [&str; 91] = [
    "__background__", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", UNUSED, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", UNUSED, "backpack", "umbrella", UNUSED,
    UNUSED, "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", UNUSED, "wine glass", "cup", "fork", "knife",
    "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza",
    "donut", "cake", "chair", "couch", "potted plant", "bed", UNUSED, "dining table", UNUSED, UNUSED,
    "toilet", UNUSED, "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", UNUSED, "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
    "toothbrush",
];

/// The name of a label, where it is a class.
pub fn name(label: u32) -> Option<&'static str> {
    NAMES.get(label as usize).copied().filter(|&name| label != 0 && name != UNUSED)
}

/// The label of a class, upper and lower case alike. The error lists the names.
pub fn label(name: &str) -> Result<u32> {
    let wanted = name.trim();
    if let Some(i) = (1..NAMES.len()).find(|&i| NAMES[i] != UNUSED && NAMES[i].eq_ignore_ascii_case(wanted)) {
        return Ok(i as u32);
    }
    let known: Vec<&str> = NAMES[1..].iter().copied().filter(|&n| n != UNUSED).collect();
    bail!("the detector knows no class \"{wanted}\"; it knows: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_classes_at_their_places() {
        assert_eq!((1..100).filter(|&i| name(i).is_some()).count(), 80);
        assert_eq!(label("Person").ok(), Some(PERSON));
        for (expected, class) in [(13, "stop sign"), (44, "bottle"), (64, "potted plant"), (90, "toothbrush")] {
            assert_eq!(label(class).ok(), Some(expected));
            assert_eq!(name(expected), Some(class));
        }
        assert_eq!(name(0), None);
        assert_eq!(name(91), None);
    }

    #[test]
    fn an_unknown_class_is_told_the_names() {
        let message = label("unicorn").expect_err("no such class").to_string();
        assert!(message.contains("unicorn") && message.contains("person, bicycle"), "{message}");
        assert!(label("N/A").is_err() && label("__background__").is_err());
    }
}
