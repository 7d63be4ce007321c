//! AVI: only enough of it to say what a file holds.

/// "CODEC in AVI", from the first bytes of the file.
pub(crate) fn describe(head: &[u8]) -> String {
    let Some(four) = four_cc(head) else { return "AVI".into() };
    let name = match four.to_ascii_uppercase().as_slice() {
        b"XVID" | b"DIVX" | b"DX50" | b"FMP4" | b"MP4V" | b"M4S2" | b"3IV2" => "MPEG-4 part 2",
        b"DIV3" | b"DIV4" | b"MP43" | b"MP42" | b"MPG4" => "MS-MPEG-4",
        b"MJPG" => "Motion JPEG",
        b"H264" | b"X264" | b"AVC1" => "H.264",
        b"HEVC" | b"H265" => "HEVC",
        b"DVSD" => "DV",
        _ => return format!("{} in AVI", printable(&four)),
    };
    format!("{name} ({}) in AVI", printable(&four))
}

/// Whether every stream that the file's first bytes describe is sound.
pub(crate) fn has_only_sound(head: &[u8]) -> bool {
    let mut kinds = head.windows(12).filter(|w| w.starts_with(b"strh")).map(|w| &w[8..12]).peekable();
    kinds.peek().is_some() && kinds.all(|kind| kind == b"auds")
}

fn printable(four: &[u8; 4]) -> String {
    four.iter().map(|&b| if b.is_ascii_graphic() { char::from(b) } else { '?' }).collect()
}

/// The compression of the first video stream: its stream header (`strh`), or the bitmap header that follows (`strf`).
fn four_cc(head: &[u8]) -> Option<[u8; 4]> {
    let video = find(head, b"strh").filter(|&at| head.get(at + 8..at + 12) == Some(b"vids"))?;
    let format = find(head.get(video..)?, b"strf").and_then(|at| head.get(video + at + 24..video + at + 28));
    let handler = head.get(video + 12..video + 16);
    let stated = |four: &&[u8]| four.iter().any(|&b| b != 0);
    format.filter(stated).or(handler.filter(stated))?.try_into().ok()
}

fn find(bytes: &[u8], name: &[u8; 4]) -> Option<usize> {
    bytes.windows(4).position(|w| w == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn avi(handler: &[u8; 4], compression: &[u8; 4]) -> Vec<u8> {
        let mut bytes = b"RIFF....AVI LIST....hdrlavih".to_vec();
        bytes.extend_from_slice(b"strh\x38\0\0\0vids");
        bytes.extend_from_slice(handler);
        bytes.extend_from_slice(&[0; 48]);
        bytes.extend_from_slice(b"strf\x28\0\0\0");
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(compression);
        bytes
    }

    #[test]
    fn the_codec_is_named() {
        assert_eq!(describe(&avi(b"xvid", b"XVID")), "MPEG-4 part 2 (XVID) in AVI");
        assert_eq!(describe(&avi(b"xvid", &[0; 4])), "MPEG-4 part 2 (xvid) in AVI");
        assert_eq!(describe(&avi(b"mjpg", b"MJPG")), "Motion JPEG (MJPG) in AVI");
        assert_eq!(describe(&avi(b"abcd", b"\x01bcd")), "?bcd in AVI");
        assert_eq!(describe(b"RIFF....AVI "), "AVI");
    }

    #[test]
    fn sound_alone_is_no_picture() {
        let sound = b"RIFF....AVI LIST....hdrlavihstrh\x38\0\0\0auds".to_vec();
        assert!(has_only_sound(&sound));
        assert!(!has_only_sound(&[sound, avi(b"xvid", b"XVID")].concat()));
        assert!(!has_only_sound(b"RIFF....AVI "));
    }
}
