//! Rectangles that move in front of a clip.

use vjepa_recipe::counter::CounterRng;

/// One rectangle of an even grey.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Occluder {
    /// Height and width in pixels.
    sides: [f64; 2],
    /// Its centre in the clip's middle, y and x.
    centre: [f64; 2],
    /// Pixels a frame, y and x.
    velocity: [f64; 2],
    grey: f32,
}

impl Occluder {
    /// Sides of .2 to .45 of the frame's, at most .04 of it a frame along each axis.
    pub(crate) fn draw(rng: &mut CounterRng, size: usize) -> Self {
        let size = size as f64;
        let mut pair = |low: f64, high: f64| [0; 2].map(|_| rng.uniform(low, high) * size);
        let (sides, centre, velocity) = (pair(0.2, 0.45), pair(0.0, 1.0), pair(-0.04, 0.04));
        Self { sides, centre, velocity, grey: rng.uniform(0.15, 0.85) as f32 }
    }

    /// Draws it into a clip `[frames, size, size]`.
    pub(crate) fn render(&self, [frames, size]: [usize; 2], out: &mut [f32]) {
        let middle = (frames as f64 - 1.0) / 2.0;
        for (frame, pixels) in out.chunks_exact_mut((size * size).max(1)).enumerate() {
            let [rows, columns] = [0, 1].map(|axis| {
                let centre = self.centre[axis] + self.velocity[axis] * (frame as f64 - middle);
                let edge = |at: f64| (at.round().max(0.0) as usize).min(size);
                edge(centre - self.sides[axis] / 2.0)..edge(centre + self.sides[axis] / 2.0)
            });
            for row in pixels.chunks_exact_mut(size.max(1)).take(rows.end).skip(rows.start) {
                if let Some(covered) = row.get_mut(columns.clone()) {
                    covered.fill(self.grey);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_what_it_says_and_moves() {
        let own = Occluder { sides: [2.0, 4.0], centre: [3.0, 4.0], velocity: [0.0, 2.0], grey: 0.5 };
        let mut out = vec![0.0; 3 * 64];
        own.render([3, 8], &mut out);
        let covered = |frame: usize| -> Vec<usize> { (0..64).filter(|i| out[frame * 64 + i] == 0.5).collect() };
        assert_eq!(covered(1), [18, 19, 20, 21, 26, 27, 28, 29]);
        assert_eq!(covered(0), [16, 17, 18, 19, 24, 25, 26, 27]);
        // Out of the frame it is cut off.
        let far = Occluder { velocity: [50.0, 0.0], ..own };
        let mut out = vec![0.0; 3 * 64];
        far.render([3, 8], &mut out);
        assert!(out[..64].iter().chain(&out[128..]).all(|v| *v == 0.0));
    }

    #[test]
    fn drawn_ones_are_a_function_of_their_generator() {
        let draw = |seed| Occluder::draw(&mut CounterRng::new(&[seed]), 48);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).sides.iter().all(|side| (9.6..21.6).contains(side)));
    }
}
