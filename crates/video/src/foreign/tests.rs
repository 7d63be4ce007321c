use std::io::Cursor;

use super::*;

fn described(kind: Foreign, bytes: &[u8]) -> String {
    kind.described(&mut Cursor::new(bytes)).unwrap()
}

/// A packet of MPEG-TS that begins a table: its payload after a byte that points at the table, filled up.
fn packet(id: u16, table: &[u8], adaptation: usize) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut packet = vec![0x47, 0x40 | high, low, if adaptation > 0 { 0x30 } else { 0x10 }];
    if adaptation > 0 {
        packet.push(adaptation as u8 - 1);
        packet.resize(4 + adaptation, 0xFF);
    }
    packet.push(0);
    packet.extend_from_slice(table);
    packet.resize(188, 0xFF);
    packet
}

fn table(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (5 + body.len() + 4) as u16 | 0xB000;
    let mut table = vec![kind];
    table.extend_from_slice(&length.to_be_bytes());
    table.extend_from_slice(&[0, 1, 0xC1, 0, 0]);
    table.extend_from_slice(body);
    table.extend_from_slice(&[0; 4]);
    table
}

/// A stream whose first program holds sound and this kind of stream; the table names the network, too.
fn stream(kind: u8) -> Vec<u8> {
    let programs = table(0, &[0, 0, 0xE0, 0x10, 0, 1, 0xF0, 0x00]);
    // Two bytes of descriptors of the program and three of the sound.
    let streams =
        [&[0xE1, 0, 0xF0, 2, 9, 0][..], &[0x0F, 0xE1, 1, 0xF0, 3, 1, 2, 3], &[kind, 0xE1, 2, 0xF0, 0]].concat();
    [packet(0x1FFF, &[], 0), packet(0, &programs, 0), packet(0x1000, &table(2, &streams), 8)].concat()
}

#[test]
fn transport_streams_name_their_first_video() {
    for (kind, name) in [(0x1B, "H.264"), (0x24, "HEVC"), (0x02, "MPEG-2"), (0x10, "MPEG-4 part 2")] {
        assert_eq!(described(Foreign::MpegTs, &stream(kind)), format!("{name} in MPEG-TS"));
    }
    assert_eq!(
        described(Foreign::MpegTs, &stream(0x06)),
        "of unknown name in MPEG-TS",
        "private data are not guessed at"
    );
    // As Blu-ray has them.
    let with_clocks: Vec<u8> = stream(0x24).chunks(188).flat_map(|packet| [&[0; 4], packet].concat()).collect();
    assert_eq!(described(Foreign::MpegTs, &with_clocks), "HEVC in MPEG-TS");
}

#[test]
fn other_containers_name_their_codec() {
    let ivf = b"DKIF\0\0\x20\0AV01\x40\0\x40\0";
    assert_eq!(described(Foreign::Ivf, ivf), "AV1 in IVF");
    let tag = |kind: u8, data: &[u8]| {
        [&[kind, 0, 0, data.len() as u8, 0, 0, 0, 0, 0, 0, 0], data, &(11 + data.len() as u32).to_be_bytes()].concat()
    };
    let flv = |video: &[u8]| {
        let tags = [tag(18, &[2; 40]), tag(8, &[0xAF, 0, 0x12]), tag(9, video)].concat();
        [b"FLV\x01\x05\0\0\0\x09\0\0\0\0".as_slice(), &tags].concat()
    };
    assert_eq!(described(Foreign::Flv, &flv(&[0x17, 0, 0, 0, 0])), "H.264 in FLV");
    assert_eq!(described(Foreign::Flv, &flv(&[0x22, 0])), "Sorenson H.263 in FLV");
    assert_eq!(described(Foreign::Flv, &flv(&[0x90, b'h', b'v', b'c', b'1'])), "HEVC in FLV");
    let page = |first: &[u8]| [b"OggS\0\x02".as_slice(), &[0; 20], &[1, first.len() as u8], first].concat();
    let ogv = [page(b"\x01vorbis......"), page(b"\x80theora\x03\x02\x01")].concat();
    assert_eq!(described(Foreign::Ogg, &ogv), "Theora in Ogg");
    let mut asf = vec![0x30, 0x26, 0xB2, 0x75];
    asf.resize(300, 7);
    asf.extend([0xC0, 0xEF, 0x19, 0xBC, 0x4D, 0x5B, 0xCF, 0x11, 0xA8, 0xFD, 0x00, 0x80, 0x5F, 0x5C, 0x44, 0x2B]);
    asf.extend([0; 38 + 11 + 16]);
    asf.extend(b"WMV2");
    assert_eq!(described(Foreign::Asf, &asf), "Windows Media Video (WMV2) in WMV");
    let sequence = |extended: &[u8]| [&[0, 0, 1, 0xBA, 4, 0, 0, 1, 0xB3, 9, 9], extended, &[0, 0, 1, 0xB8]].concat();
    assert_eq!(described(Foreign::MpegPs, &sequence(&[])), "MPEG-1 in MPEG-PS");
    assert_eq!(described(Foreign::MpegPs, &sequence(&[0, 0, 1, 0xB5])), "MPEG-2 in MPEG-PS");
    let mxf =
        [&[6, 14, 43, 52, 2, 5, 1, 1][..], &[0; 80], &[6, 14, 43, 52, 4, 1, 1, 3, 13, 1, 3, 1, 2, 0x1C, 1, 0]].concat();
    assert_eq!(described(Foreign::Mxf, &mxf), "ProRes in MXF");
}

/// Every start of every sample, and every sample with each byte replaced: an answer, whatever it is.
#[test]
fn damage_is_no_answer_and_no_panic() {
    let all = [Foreign::Avi, Foreign::MpegTs, Foreign::MpegPs, Foreign::Flv, Foreign::Ogg, Foreign::Asf];
    for kind in all.into_iter().chain([Foreign::Ivf, Foreign::Mxf]) {
        let unknown = format!("of unknown name in {}", kind.name());
        assert_eq!(described(kind, &[]), unknown);
        for byte in [0, 0x47, 0xFF] {
            assert!(described(kind, &[byte; 4000]).contains(kind.name()));
        }
        let bytes = stream(0x1B);
        for at in 0..bytes.len() {
            described(kind, &bytes[..at]);
            for byte in [0, 1, 0x7F, 0xFF] {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                described(kind, &bytes);
            }
        }
    }
}
