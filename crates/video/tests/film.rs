//! Pictures written as a video, read again.

use std::time::Duration;

use vjepa_video::{Film, FilmError};

const WIDTH: usize = 65;
const HEIGHT: usize = 47;

/// Seven pictures, each of a colour on the left and another on the right.
fn pictures() -> Vec<Vec<u8>> {
    let colour = |i: usize| [(40 * i) as u8, 250 - (30 * i) as u8, 60 + (20 * i) as u8];
    let one = |i: usize| {
        let row = (0..WIDTH).flat_map(|x| if x < 32 { colour(i) } else { colour(6 - i) });
        row.collect::<Vec<u8>>().repeat(HEIGHT)
    };
    (0..7).map(one).collect()
}

fn film(pictures: &[Vec<u8>]) -> Film<'_> {
    Film { width: WIDTH, height: HEIGHT, each: Duration::from_millis(120), pictures }
}

#[test]
fn what_is_no_film_is_said() {
    let none = film(&[]).mp4().unwrap_err();
    assert!(none.to_string().contains("no picture"), "{none}");
    let pictures = pictures();
    let large = Film { width: 1 << 20, ..film(&pictures) }.mp4().unwrap_err();
    assert!(matches!(large, FilmError::Pictures(_)) && large.to_string().contains("1048576x47"), "{large}");
    let other = Film { height: HEIGHT + 1, ..film(&pictures) }.mp4().unwrap_err();
    assert!(other.to_string().contains("several sizes"), "{other}");
    if !Film::WRITTEN {
        let without = film(&pictures).mp4().unwrap_err();
        assert!(without.to_string().contains("--features ffmpeg"), "{without}");
    }
}

#[cfg(feature = "ffmpeg")]
#[test]
fn a_film_reads_as_what_was_written() {
    use vjepa_video::{Decoder, open_with};

    let pictures = pictures();
    let path = std::env::temp_dir().join(format!("vjepa-film-{}.mp4", std::process::id()));
    let bytes = film(&pictures).mp4().unwrap();
    assert_eq!(bytes, film(&pictures).mp4().unwrap(), "the same pictures give the same bytes");
    std::fs::write(&path, bytes).unwrap();
    for decoder in [Decoder::Auto, Decoder::Ffmpeg] {
        let mut clip = open_with(&path, decoder).unwrap();
        assert_eq!(clip.info().frames, pictures.len());
        for (i, time) in clip.info().timestamps.iter().enumerate() {
            assert!((time - 0.12 * i as f64).abs() < 1e-3, "{i}: {time}");
        }
        let all: Vec<usize> = (0..pictures.len()).collect();
        for (frame, written) in clip.frames(&all).unwrap().iter().zip(&pictures) {
            // Odd sizes end at the next even ones.
            assert_eq!((frame.display_width(), frame.display_height()), (66, 48));
            let read = frame.rgb();
            // Within each colour, and at the far corner, which repeats.
            for (x, y, from) in [(10, 10, 10), (50, 30, 50), (65, 47, 64)] {
                let wanted = &written[(y.min(46) * WIDTH + from) * 3..][..3];
                let found = &read[(y * 66 + x) * 3..][..3];
                let near = found.iter().zip(wanted).all(|(a, b)| a.abs_diff(*b) <= 6);
                assert!(near, "frame {} at {x}, {y}: {found:?} for {wanted:?}", frame.index);
            }
        }
    }
    std::fs::remove_file(path).unwrap();
}
