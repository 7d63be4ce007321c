//! Clips with their nearest neighbours.

use super::{CAPTION, EDGE, HEAD, LABEL, ShownClip, TITLE};
use crate::canvas::{Canvas, ink};

/// A clip in a picture of neighbours.
#[derive(Clone, Debug)]
pub struct Neighbour<'a> {
    /// The clip.
    pub clip: ShownClip<'a>,
    /// Its caption: the file, and how near it is.
    pub caption: String,
}

/// Clips with their nearest neighbours: one row per query, which comes first.
pub fn neighbours(rows: &[Vec<Neighbour<'_>>]) -> Canvas {
    const SIDE: usize = 96;
    const FRAMES: usize = 3;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (cell, height) = (FRAMES * SIDE + 28, SIDE + 40);
    let title = "Nearest neighbours by mean features";
    let width = (EDGE * 2 + columns * cell).max(EDGE * 2 + Canvas::text_width(title, TITLE));
    let mut canvas = Canvas::new(width, HEAD + 24 + rows.len() * height + EDGE);
    canvas.text(EDGE, 24, title, TITLE, ink::DARK);
    for column in 0..columns {
        let name = if column == 0 { "query".to_owned() } else { format!("neighbour {column}") };
        canvas.text(EDGE + column * cell, HEAD, &name, LABEL, if column == 0 { ink::BLUE } else { ink::MUTED });
    }
    for (row, clips) in rows.iter().enumerate() {
        for (column, neighbour) in clips.iter().enumerate() {
            let (x, y) = (EDGE + column * cell, HEAD + 24 + row * height);
            for (place, frame) in neighbour.clip.spread(FRAMES).iter().enumerate() {
                let (picture, scale) = frame.fitted(SIDE);
                canvas.image(x + place * (SIDE + 2), y, &picture.rgb, picture.width, scale);
            }
            if column == 0 {
                canvas.fill(x.saturating_sub(10), y, 4, SIDE, ink::BLUE);
            }
            let caption = fitted_end(&neighbour.caption, FRAMES * SIDE);
            canvas.text(x, y + SIDE + 10, &caption, CAPTION, ink::MUTED);
        }
    }
    canvas
}

/// The end of a caption that fits into `width` pixels: of a long path it says more than the beginning.
fn fitted_end(caption: &str, width: usize) -> String {
    if Canvas::text_width(caption, CAPTION) <= width {
        return caption.to_owned();
    }
    let ends =
        caption.char_indices().skip(1).map(|(start, _)| format!("…{}", caption.get(start..).unwrap_or_default()));
    ends.into_iter().find(|end| Canvas::text_width(end, CAPTION) <= width).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shown, texture};
    use super::*;

    #[test]
    fn neighbours_stand_in_rows() {
        let clips = [texture(0), texture(1)];
        let of = |clip, caption: &str| Neighbour { clip, caption: caption.into() };
        let rows = vec![vec![of(shown(&clips[0]), &"long/".repeat(40)), of(shown(&clips[1]), "0.93")]];
        assert!(neighbours(&rows).width() > 600);
        assert!(neighbours(&[]).width() > 100);
    }

    #[test]
    fn long_captions_keep_their_end() {
        assert_eq!(fitted_end("0.93", 100), "0.93");
        let cut = fitted_end(&("é/".repeat(80) + "clip.mp4"), 200);
        assert!(cut.starts_with('…') && cut.ends_with("clip.mp4"), "{cut}");
        assert!(Canvas::text_width(&cut, CAPTION) <= 200);
    }
}
