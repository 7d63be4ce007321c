//! The textures against the recipe's formulas in plain f64, and their statistics.

use super::*;

const RECIPE: (usize, usize) = (8, 48);

fn source() -> DriftingTextures {
    DriftingTextures::new(RECIPE.0, RECIPE.1, Normalization::PerClip)
}

fn heading(labels: TextureLabels) -> f64 {
    labels.direction as f64 * std::f64::consts::FRAC_PI_4
}

/// The recipe's formula for one pixel, by the system's functions.
fn formula(scene: &Scene, t: f64, y: f64, x: f64) -> f64 {
    let at = |p: Phase| p.x * x + p.y * y + p.t * t + p.at_origin;
    let (a, b) = (at(scene.a), at(scene.b));
    let s = match scene.texture {
        0 => 0.8 * a.sin() + 0.4 * (b / 2.0).sin(),
        1 => 1.4 * a.sin() * b.sin(),
        2 => (3.0 * ((a.cos() + b.cos()) / 2.0 - 0.35)).tanh(),
        3 => (4.0 * (a.cos().max(b.cos()) - 0.75)).tanh(),
        4 => (a + 1.6 * (0.98 * (0.8 * b).sin()).asin()).sin(),
        5 => (a.cos() + (-a / 2.0 + 0.866 * b).cos() + (-a / 2.0 - 0.866 * b).cos()) / 1.5,
        6 => (2.0 * a + b.sin()).sin(),
        _ => a.sin() * (b / 2.0).sin().signum(),
    };
    0.5 + f64::from(scene.amplitude) * s
}

#[test]
fn every_texture_follows_its_formula() {
    let (frames, size) = RECIPE;
    for texture in 0..TEXTURES.len() {
        for index in 0..4 {
            let labels = TextureLabels { texture, direction: index % 8, speed: index % 2 };
            let scene = Scene::draw(5, index as u64, labels, heading(labels), size);
            let mut out = vec![0.0; frames * size * size];
            scene.render(0..frames, frames, size, &mut out);
            let mut wrong = 0;
            for (i, &value) in out.iter().enumerate() {
                let (t, y, x) = (i / (size * size), i / size % size, i % size);
                let expected = formula(&scene, t as f64 - 3.5, y as f64, x as f64);
                wrong += usize::from((f64::from(value) - expected).abs() > 2e-5);
            }
            // Texture 7 jumps where sin(B/2) changes sign; a pixel exactly there may fall on either side.
            assert!(wrong <= usize::from(texture == 7), "texture {texture}: {wrong} pixels off");
        }
    }
}

#[test]
fn phases_drift_with_the_velocity() {
    // Where the texture is after one frame, A and B are what they were where it came from.
    let labels = TextureLabels { texture: 0, direction: 3, speed: 1 };
    let scene = Scene::draw(1, 2, labels, heading(labels), 48);
    // Solve for the velocity from the two phases' gradients.
    let (a, b) = (scene.a, scene.b);
    let det = a.x * b.y - a.y * b.x;
    let (vx, vy) = ((-a.t * b.y + b.t * a.y) / det, (-b.t * a.x + a.t * b.x) / det);
    let (pace, angle) = (vx.hypot(vy), vy.atan2(vx));
    assert!((4.25..5.75).contains(&pace), "{pace}");
    assert!((angle - 3.0 * std::f64::consts::FRAC_PI_4).abs() <= 0.2, "{angle}");
}

#[test]
fn a_clip_is_a_function_of_seed_and_index() {
    let source = source();
    let plane = RECIPE.0 * RECIPE.1 * RECIPE.1;
    let make = |seed, position| {
        let mut out = vec![0.0; 3 * plane];
        let key = SampleKey { seed, epoch: 0, position, retry: 0 };
        let info = source.sample(key, &mut out).unwrap();
        (info, out)
    };
    let (info, clip) = make(3, 7);
    assert_eq!(make(3, 7).1, clip);
    assert_ne!(make(3, 8).1, clip);
    assert_ne!(make(4, 7).1, clip);
    assert_eq!(info.label, Some(source.labels(3, 7).texture as i64));
    let n = plane as f64;
    let mean = clip[..plane].iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = clip[..plane].iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
    assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-5, "{mean} {square}");
    assert_eq!(clip[..plane], clip[plane..2 * plane]);
    assert_eq!(clip[..plane], clip[2 * plane..]);
}

/// Guards the stream itself: quickstart numbers and the files in `assets/textures` belong to these values.
#[test]
fn the_stream_is_what_it_was() {
    let mut out = vec![0.0; RECIPE.0 * RECIPE.1 * RECIPE.1];
    let mut hash = 0;
    let mut drawn = Vec::new();
    for index in 0..4 {
        let labels = source().labels(0, index);
        drawn.push((labels.texture, labels.direction, labels.speed));
        for texture in 0..TEXTURES.len() {
            source().render_as(0, index, TextureLabels { texture, ..labels }, &mut out).unwrap();
            hash = out.iter().fold(hash, |h, v| vjepa_recipe::counter::mix(&[h, u64::from(v.to_bits())]));
        }
    }
    assert_eq!((drawn.as_slice(), hash), GOLDEN);
}

const GOLDEN: (&[(usize, usize, usize)], u64) =
    (&[(4, 7, 1), (7, 2, 1), (6, 6, 0), (1, 7, 1)], 681_929_723_031_134_888);

#[test]
fn labels_are_balanced() {
    let source = source();
    let mut counts = [0u32; 128];
    for index in 0..12_800 {
        let l = source.labels(9, index);
        counts[(l.texture * 8 + l.direction) * 2 + l.speed] += 1;
    }
    assert!(counts.iter().all(|&n| (60..145).contains(&n)), "{counts:?}");
}

#[test]
fn other_normalisations_and_wrong_sizes() {
    let imagenet = DriftingTextures::new(2, 16, Normalization::Imagenet);
    let key = SampleKey { seed: 0, epoch: 0, position: 0, retry: 0 };
    let mut out = vec![0.0; 3 * 2 * 16 * 16];
    imagenet.sample(key, &mut out).unwrap();
    let mut raw = vec![0.0; 2 * 16 * 16];
    imagenet.render(0, 0, &mut raw).unwrap();
    assert!((out[512] - (raw[0] - 0.456) / 0.224).abs() < 1e-6);
    assert!(imagenet.sample(key, &mut out[1..]).is_err());
    let labels = TextureLabels { texture: 8, direction: 0, speed: 0 };
    assert!(imagenet.render_as(0, 0, labels, &mut raw).is_err());
}

/// Before its turn a texture is where a straight one is, and after it drifts at a right angle, from where it was.
#[test]
fn a_turn_changes_the_direction_and_nothing_else() {
    let (frames, size) = RECIPE;
    let still = Difficulty { noise: 0.0, ..Difficulty::PLAIN };
    let straight = source().with(still);
    let turning = source().with(Difficulty { turns: true, ..still });
    let render = |stream: &DriftingTextures, index, direction| {
        let labels = TextureLabels { texture: 0, direction, speed: 0 };
        let mut out = vec![0.0; frames * size * size];
        stream.render_as(2, index, labels, &mut out).unwrap();
        out
    };
    let mut turns = std::collections::BTreeSet::new();
    for index in 0..20 {
        let turn = turning_frame(2, index, frames);
        turns.insert(turn);
        // First to the right, then down or up; a straight one to the right has direction 0.
        let (plain, down, up) = (render(&straight, index, 0), render(&turning, index, 0), render(&turning, index, 1));
        let at = turn * size * size;
        assert!(plain[..at] == down[..at] && down[..at] == up[..at], "{index}");
        assert!(plain[at..] != down[at..] && down[at..] != up[at..], "{index}");
        // Half a frame's way after the turn and half before it: no jump is longer than a frame's way.
        let step = |out: &[f32], frame: usize| {
            let [a, b] = [frame - 1, frame].map(|frame| &out[frame * size * size..(frame + 1) * size * size]);
            a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>()
        };
        let usual = (1..turn).map(|frame| step(&down, frame)).fold(0.0, f64::max);
        assert!(step(&down, turn) < 2.0 * usual, "{index}: {} {usual}", step(&down, turn));
    }
    assert!(turns.len() > 1 && turns.iter().all(|turn| (3..=5).contains(turn)), "{turns:?}");
}

#[test]
fn occluders_cover_a_part_of_the_texture() {
    let (frames, size) = RECIPE;
    let still = Difficulty { noise: 0.0, ..Difficulty::PLAIN };
    let mut share = 0.0;
    for index in 0..20 {
        let [plain, covered] = [0, 3].map(|occluders| {
            let mut out = vec![0.0; frames * size * size];
            source().with(Difficulty { occluders, ..still }).render(7, index, &mut out).unwrap();
            out
        });
        share += plain.iter().zip(&covered).filter(|(a, b)| a != b).count() as f64 / plain.len() as f64 / 20.0;
    }
    assert!((0.1..0.4).contains(&share), "{share}");
}
