//! `vjepa serve`: an exported model over HTTP and gRPC.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vjepa_runtime::onnx::OnnxFile;
use vjepa_runtime::{Batches, Options, Preprocessing, Runtime, Session, TensorInfo, is_compiled};
use vjepa_serve::{Batching, Limits, Model, Security, Server, Settings, Tls, Token, VideoReader, Web};

use super::CliError;
use super::runtime::{RuntimeArgs, caution, words};
use vjepa_data::clips;
use vjepa_deploy::bundle;
use vjepa_runtime::ClipViews;
use vjepa_runtime::cores;

/// Serve a model over HTTP and gRPC: tensors by the Open Inference Protocol, video files, and a web page
#[derive(clap::Args)]
pub struct Args {
    /// Exported model (.onnx, .vjg) or bundle
    #[arg(value_name = "MODEL|BUNDLE")]
    model: PathBuf,
    /// Runtime; `auto` picks one that needs no installation
    #[arg(long, default_value = "auto", value_parser = words())]
    runtime: String,
    /// Model name in paths and requests [default: the name of the file or folder]
    #[arg(long)]
    name: Option<String>,
    /// Address or host name to listen on; if other machines can reach it, --token-file and TLS (or --insecure) are required
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: String,
    /// HTTP port; 0 picks a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// gRPC port; 0 picks a free one
    #[arg(long, default_value_t = 8001, value_name = "PORT")]
    grpc_port: u16,
    /// Serve HTTP only
    #[arg(long)]
    no_grpc: bool,
    /// Copies of the model that run in parallel, each with its own memory and threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    instances: usize,
    /// Total number of threads, divided among the instances [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Maximum number of clips per run and per request
    #[arg(long, default_value_t = 8, value_name = "CLIPS")]
    max_batch: usize,
    /// How long a request may wait to be batched with others, in milliseconds
    #[arg(long, default_value_t = 2.0, value_name = "MS")]
    max_delay: f64,
    /// Maximum number of waiting requests; further ones are refused with 503
    #[arg(long, default_value_t = 64, value_name = "N")]
    queue: usize,
    /// Maximum duration of a request in seconds; after that it gets 504
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    timeout: f64,
    /// Maximum size of a request body
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    max_body: String,
    /// Memory for all request bodies together
    #[arg(long, default_value = "512MiB", value_name = "SIZE")]
    max_bodies: String,
    /// Maximum number of connections, for HTTP and gRPC each
    #[arg(long, default_value_t = 256, value_name = "N")]
    connections: usize,
    /// How long an idle HTTP connection is kept open, in seconds; must be longer than the load balancer's
    #[arg(long, default_value_t = 75.0, value_name = "SECONDS")]
    keep_alive: f64,
    /// Origin whose pages may send requests from a browser (CORS), e.g. `https://lab.example` (repeatable)
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Path prefix that a proxy does not strip, e.g. /models/textures
    #[arg(long, default_value = "", value_name = "PATH")]
    path_prefix: String,
    /// How long running requests may take at shutdown, in seconds
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    drain: f64,
    /// File with the bearer token that clients must send
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// TLS certificate chain, PEM (needs --tls-key)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen without TLS even if other machines can reach the server
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    session: RuntimeArgs,
    /// Log refused requests too
    #[arg(long)]
    verbose: bool,
    /// Print JSON lines: the addresses on standard output, events on standard error
    #[arg(long)]
    json: bool,
}

/// Runs the command, until a signal ends it.
pub fn run(args: &Args) -> Result<(), CliError> {
    let settings = settings(args)?;
    log(args);
    let name = name(args)?;
    let sessions = sessions(args)?;
    let Some(first) = sessions.first() else { return Err("--instances must be at least 1".into()) };
    caution(&args.model, first);
    let (about, video) = (first.runtime(), video_reader(&args.model, first));
    let mut model = Model::new(&name, sessions)?;
    model.fits(&settings.limits)?;
    model.warm_up(args.max_batch).map_err(|error| format!("{}: {error}", args.model.display()))?;
    let record = video.as_ref().map(|(record, _)| clips::in_words(record));
    let server = Server::start(model, settings, video.map(|(_, reader)| reader))?;
    server.obey_signals()?;
    announce(args, &name, &about, record, &server);
    server.wait();
    Ok(())
}

fn settings(args: &Args) -> Result<Settings, CliError> {
    let time = |flag: &str, value: f64, unit: f64| {
        Duration::try_from_secs_f64(value * unit).map_err(|_| format!("{flag} must be 0 or more, got {value}"))
    };
    let size = |flag: &str, text: &str| {
        let wrong = |_| format!("{flag} must be a size such as 64MiB, got {text}");
        let bytes = parse_size::parse_size(text).map_err(wrong)?;
        usize::try_from(bytes).map_err(|_| format!("{flag} {text} is more than this machine can address"))
    };
    let token = args.token_file.as_deref().map(token).transpose()?;
    let tls = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
    let host = address(&args.host)?;
    Ok(Settings {
        http: SocketAddr::new(host, args.port),
        grpc: (!args.no_grpc).then(|| SocketAddr::new(host, args.grpc_port)),
        batching: Batching { max_clips: args.max_batch, max_delay: time("--max-delay", args.max_delay, 1e-3)? },
        limits: Limits {
            queue: args.queue,
            body: size("--max-body", &args.max_body)?,
            bodies: size("--max-bodies", &args.max_bodies)?,
            connections: args.connections,
            keep_alive: time("--keep-alive", args.keep_alive, 1.0)?,
            request: time("--timeout", args.timeout, 1.0)?,
            drain: time("--drain", args.drain, 1.0)?,
            ..Limits::default()
        },
        security: Security {
            token,
            tls: tls.map(|(cert, key)| Tls::read(cert, key)).transpose()?,
            insecure: args.insecure,
        },
        web: Web::new(&args.allow_origin, &args.path_prefix)?,
        temporary: None,
    })
}

/// The address of a host. IPv4 is preferred for names, as clients on this machine expect.
fn address(host: &str) -> Result<IpAddr, CliError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    let unknown =
        || format!("--host {host} is neither an address nor a host name of this machine; try 127.0.0.1 or 0.0.0.0");
    let mut found: Vec<IpAddr> =
        (bare, 0).to_socket_addrs().map_err(|_| unknown())?.map(|address| address.ip()).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found.into_iter().next().ok_or_else(unknown)?)
}

fn token(path: &Path) -> Result<Token, CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read the token {}: {error}", path.display()))?;
    Ok(Token::new(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn name(args: &Args) -> Result<String, CliError> {
    let stem = || {
        let whole = std::path::absolute(&args.model).ok()?;
        Some(whole.file_stem()?.to_string_lossy().into_owned())
    };
    args.name
        .clone()
        .or_else(stem)
        .ok_or_else(|| format!("{} has no file name; give --name", args.model.display()).into())
}

/// One session per instance. The threads are divided among them; plans all run on the threads of the process.
fn sessions(args: &Args) -> Result<Vec<Session>, CliError> {
    let path = bundle::model_of(&args.model)?;
    vjepa_weights::refuse_foreign(&path)?;
    let threads = args.threads.or_else(cores).unwrap_or(1);
    let sharing = if is_compiled(&path) { 1 } else { args.instances.max(1) };
    let threads = (threads / sharing).max(1);
    let runtime: Runtime = args.runtime.parse()?;
    let mut options = Options { runtime, threads: Some(threads), ..args.session.options() };
    if runtime == Runtime::TensorRt {
        let max = args.max_batch.max(1);
        match options.batches {
            Some(batches) => takes_all(batches, max)?,
            None => {
                // An engine for every batch that requests can form; a fixed batch needs none.
                let free = OnnxFile::read(&path)?.inputs.iter().all(TensorInfo::has_free_batch);
                options.batches = free.then_some(Batches { min: 1, opt: max, max });
            }
        }
    }
    let mut sessions = Vec::with_capacity(args.instances);
    for _ in 0..args.instances {
        let session = Session::open(&path, &options)?;
        // The others run where the first one does: `auto` looks for a runtime, and reports it, once.
        options.runtime = session.runs_on();
        sessions.push(session);
    }
    Ok(sessions)
}

/// Refuses an engine that would fail on batches that requests can form, from one clip to `--max-batch`.
fn takes_all(Batches { min, max, .. }: Batches, max_batch: usize) -> Result<(), CliError> {
    if max < max_batch {
        return Err(format!(
            "--batches: the engine would take at most {max} clips, but runs have up to {max_batch}; give --max-batch {max}, \
             or {max_batch} as MAX"
        )
        .into());
    }
    if min > 1 {
        return Err(format!(
            "--batches: the engine would take at least {min} clips, but a request may have one; give 1 as MIN"
        )
        .into());
    }
    Ok(())
}

/// Reads videos as the model's preprocessing record says; none for a model without one, which takes tensors only.
fn video_reader(model: &Path, session: &Session) -> Option<(Preprocessing, Arc<VideoReader>)> {
    let reader =
        session.preprocessing().map_err(CliError::from).and_then(|record| Ok((record, clips::clip_views(session)?)));
    match reader {
        Err(error) => {
            eprintln!("warning: {}: {error}; video files are refused, tensors are served", model.display());
            None
        }
        Ok((record, clip_views)) => {
            let known = record.clone();
            Some((known, Arc::new(move |path: &Path| clip(path, &record, clip_views))))
        }
    }
}

fn clip(path: &Path, record: &Preprocessing, clip_views: ClipViews) -> Result<Vec<f32>, String> {
    clips::read_views(path, record, clip_views).map(|clips| clips.data).map_err(|error| error.to_string())
}

fn log(args: &Args) {
    let level = if args.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // The protocol libraries log every frame.
    let ours = Targets::new().with_default(LevelFilter::WARN).with_target("vjepa_serve", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = if args.json { lines.json().boxed() } else { lines.without_time().boxed() };
    // Only a second server in this process could set it twice.
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).try_init();
}

fn announce(args: &Args, name: &str, about: &str, record: Option<String>, server: &Server) {
    let (http, grpc) = (server.http(), server.grpc());
    if args.json {
        let line = serde_json::json!({
            "event": "listening", "model": name, "runtime": about, "http": http, "grpc": grpc,
            "tls": args.tls_cert.is_some(),
        });
        println!("{line}");
        return;
    }
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    let prefix = args.path_prefix.trim_end_matches('/');
    println!("{name} on {about}");
    if let Some(record) = record {
        println!("clips: {record}");
    }
    println!("{scheme}  {scheme}://{http}{prefix}/  (page, /v1/classify, /v2/models/{name}, /metrics)");
    if let Some(grpc) = grpc {
        println!("grpc  {grpc}");
    }
}
