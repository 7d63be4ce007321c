//! Generates the gRPC service from `proto/inference.proto`, without `protoc`, and its description for reflection.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/inference.proto");
    let files = protox::compile(["proto/inference.proto"], ["proto"])?;
    let place = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(place.join("inference.bin"), files.encode_to_vec())?;
    // Tensors stay in the buffer that they arrived in.
    let mut config = prost_build::Config::new();
    config.bytes([".inference.ModelInferRequest.raw_input_contents"]);
    // Connections are not its business.
    let builder = tonic_prost_build::configure().build_transport(false).codec_path("crate::wire::Counted");
    builder.compile_fds_with_config(files, config)?;
    Ok(())
}
