//! AVI: only enough of it to say which codec a file holds.

/// The codec, from the first bytes of the file.
pub(crate) fn codec(head: &[u8]) -> Option<String> {
    let four = four_cc(head)?;
    let name = match four.to_ascii_uppercase().as_slice() {
        b"XVID" | b"DIVX" | b"DX50" | b"FMP4" | b"MP4V" | b"M4S2" | b"3IV2" => "MPEG-4 part 2",
        b"DIV3" | b"DIV4" | b"MP43" | b"MP42" | b"MPG4" => "MS-MPEG-4",
        b"MJPG" => "Motion JPEG",
        b"H264" | b"X264" | b"AVC1" => "H.264",
        b"HEVC" | b"H265" => "HEVC",
        b"DVSD" => "DV",
        _ => return Some(printable(&four)),
    };
    Some(format!("{name} ({})", printable(&four)))
}

/// Whether every stream that the file's first bytes describe is sound.
pub(crate) fn has_only_sound(head: &[u8]) -> bool {
    let mut kinds = head.windows(12).filter(|w| w.starts_with(b"strh")).map(|w| &w[8..12]).peekable();
    kinds.peek().is_some() && kinds.all(|kind| kind == b"auds")
}

/// Four characters of a codec's name.
pub(crate) fn printable(four: &[u8; 4]) -> String {
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
        let named = |bytes: &[u8]| codec(bytes).unwrap_or_default();
        assert_eq!(named(&avi(b"xvid", b"XVID")), "MPEG-4 part 2 (XVID)");
        assert_eq!(named(&avi(b"xvid", &[0; 4])), "MPEG-4 part 2 (xvid)");
        assert_eq!(named(&avi(b"mjpg", b"MJPG")), "Motion JPEG (MJPG)");
        assert_eq!(named(&avi(b"abcd", b"\x01bcd")), "?bcd");
        assert_eq!(codec(b"RIFF....AVI "), None);
    }

    #[test]
    fn sound_alone_is_no_picture() {
        let sound = b"RIFF....AVI LIST....hdrlavihstrh\x38\0\0\0auds".to_vec();
        assert!(has_only_sound(&sound));
        assert!(!has_only_sound(&[sound, avi(b"xvid", b"XVID")].concat()));
        assert!(!has_only_sound(b"RIFF....AVI "));
    }
}
