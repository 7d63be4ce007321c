//! The Open Inference Protocol over gRPC, with Triton's configuration and statistics.

use crate::error::InferError;
use crate::guard::message_limit;
use crate::health::HealthOf;
use crate::metrics::Sum;
use crate::model::{BatchShape, VERSION};
use crate::protocol::{self, DATATYPE, EXTENSIONS, InputHead};
use crate::queue::Values;
use crate::state::{Admitted, Core};
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::HealthServer;

/// Messages, client and server of the protocol, as they are generated from `proto/inference.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("inference");
}

use proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use proto::infer_parameter::ParameterChoice;
use proto::model_config::SchedulingChoice;
use proto::model_infer_request::InferRequestedOutputTensor;
use proto::model_infer_response::InferOutputTensor;
use proto::model_metadata_response::TensorMetadata;
use proto::repository_index_response::ModelIndex;
use proto::*;

/// The service.
pub(crate) struct Service(pub Arc<Core>);

impl Service {
    /// The service as a router of requests, with the server's limit on messages.
    pub fn into_router(self) -> axum::Router {
        let limit = message_limit(&self.0.settings.limits);
        let health = HealthServer::new(HealthOf::new(self.0.clone())).max_decoding_message_size(SMALL);
        let service = GrpcInferenceServiceServer::new(self)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX);
        let mut routes = tonic::service::Routes::new(service).add_service(health);
        // Both are made from descriptions that the build made; without one, the server does without reflection.
        match described().build_v1() {
            Ok(reflection) => routes = routes.add_service(reflection.max_decoding_message_size(SMALL)),
            Err(error) => tracing::error!(%error, "no reflection"),
        }
        match described().build_v1alpha() {
            Ok(reflection) => routes = routes.add_service(reflection.max_decoding_message_size(SMALL)),
            Err(error) => tracing::error!(%error, "no reflection"),
        }
        routes.prepare().into_axum_router()
    }

    async fn infer(&self, mut request: Request<ModelInferRequest>) -> Result<ModelInferResponse, InferError> {
        let core = &self.0;
        let admitted = request.extensions_mut().remove::<Arc<Admitted>>();
        let admitted = admitted.ok_or_else(|| InferError::Failed("the request was not admitted".to_owned()))?;
        let timeout = deadline(request.metadata());
        let mut request = request.into_inner();
        core.check_model(&request.model_name, &request.model_version)?;
        let timeout = core.timeout(earlier(timeout, asked(&request)?));
        let (shape, values) = clips(core, &mut request)?;
        for InferRequestedOutputTensor { parameters, .. } in &request.outputs {
            protocol::no_shared_memory(parameters.contains_key("shared_memory_region"))?;
            protocol::no_classification(
                ["classification", "class_count"].iter().any(|key| parameters.contains_key(*key)),
            )?;
        }
        let named = request.outputs.iter().map(|output| (output.name.as_str(), true));
        let wanted = protocol::wanted(&core.info, named, true)?;
        let (model_name, id) = (request.model_name, request.id);
        let answer = core.infer(&admitted, shape, values, None, timeout).await?;
        let mut response =
            ModelInferResponse { model_name, model_version: VERSION.to_owned(), id, ..ModelInferResponse::default() };
        for one in wanted {
            let output = protocol::pick(&answer.outputs, one)?;
            let mut bytes = Vec::with_capacity(size_of_val(output.data.as_slice()));
            protocol::append(&mut bytes, &output.data);
            response.raw_output_contents.push(bytes);
            response.outputs.push(InferOutputTensor {
                name: output.name.clone(),
                datatype: DATATYPE.to_owned(),
                shape: output.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
                ..InferOutputTensor::default()
            });
        }
        Ok(response)
    }
}

/// Bytes of a message that asks for health or a description.
const SMALL: usize = 1 << 16;

/// Descriptors for reflection.
fn described() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTION)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// `proto/inference.proto` as reflection gives it away.
const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// `grpc-timeout`: up to eight digits and a unit.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The earlier of two deadlines; zero is none.
fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).filter(|time| !time.is_zero()).min()
}

/// The parameter `timeout`, in microseconds.
fn asked(request: &ModelInferRequest) -> Result<Option<Duration>, InferError> {
    let Some(parameter) = request.parameters.get("timeout") else { return Ok(None) };
    let micros = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(value)) => u64::try_from(value).ok(),
        Some(ParameterChoice::Uint64Param(value)) => Some(value),
        // A parameter without a value is one that is not there.
        None => return Ok(None),
        _ => None,
    };
    let wrong = || InferError::Invalid("the parameter `timeout` must be a non-negative integer".to_owned());
    micros.map(|micros| Some(Duration::from_micros(micros))).ok_or_else(wrong)
}

/// The request's clips, from `raw_input_contents` or from `contents`.
fn clips(core: &Core, request: &mut ModelInferRequest) -> Result<(BatchShape, Values), InferError> {
    let invalid = |what: &str| InferError::Invalid(format!("{what}; the model takes {}", core.info.input));
    let [input] = request.inputs.as_mut_slice() else { return Err(invalid("the request must have one input")) };
    protocol::no_shared_memory(input.parameters.contains_key("shared_memory_region"))?;
    let sizes: Result<Vec<u64>, _> = input.shape.iter().map(|size| u64::try_from(*size)).collect();
    let shape = sizes.map_err(|_| protocol::negative(&core.info))?;
    let head = InputHead { name: &input.name, datatype: &input.datatype, shape };
    let shape = protocol::clip_shape(&core.info, core.settings.batching.max_clips, &head)?;
    let contents = input.contents.take().map(|contents| contents.fp32_contents).filter(|values| !values.is_empty());
    match (request.raw_input_contents.as_mut_slice(), contents) {
        ([raw], None) => {
            protocol::check_bytes(shape, raw.len())?;
            Ok((shape, Values::Bytes(std::mem::take(raw))))
        }
        ([], Some(values)) => {
            protocol::check_count(shape, values.len())?;
            Ok((shape, Values::Floats(values)))
        }
        ([], None) => Err(invalid("the input has no values in `raw_input_contents` or `fp32_contents`")),
        _ => Err(invalid("the input's values are given more than once")),
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.ready().await.is_ok() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        self.0.check_model(&request.get_ref().name, &request.get_ref().version)?;
        Ok(Response::new(ModelReadyResponse { ready: self.0.ready().await.is_ok() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "vjepa".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        self.0.check_model(&request.get_ref().name, &request.get_ref().version)?;
        let info = &self.0.info;
        let tensor = |tensor: &vjepa_runtime::TensorInfo| TensorMetadata {
            name: tensor.name.clone(),
            datatype: DATATYPE.to_owned(),
            shape: protocol::dims(tensor),
        };
        Ok(Response::new(ModelMetadataResponse {
            name: info.name.clone(),
            versions: vec![VERSION.to_owned()],
            platform: info.runtime.clone(),
            inputs: vec![tensor(&info.input)],
            outputs: info.outputs.iter().map(tensor).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        Ok(Response::new(self.infer(request).await?))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        self.0.check_model(&request.get_ref().name, &request.get_ref().version)?;
        let batching = self.0.settings.batching;
        let configuration = protocol::configuration(&self.0.info, batching.max_clips);
        let data_type = DataType::TypeFp32.into();
        let mut tensors = configuration.tensors.into_iter();
        let input = tensors.by_ref().take(1).map(|(name, dims)| ModelInput { name: name.to_owned(), data_type, dims });
        let input = input.collect();
        let output = tensors.map(|(name, dims)| ModelOutput { name: name.to_owned(), data_type, dims }).collect();
        let delay = u64::try_from(batching.max_delay.as_micros()).unwrap_or(u64::MAX);
        let dynamic = ModelDynamicBatching { preferred_batch_size: Vec::new(), max_queue_delay_microseconds: delay };
        let config = ModelConfig {
            name: self.0.info.name.clone(),
            platform: self.0.info.runtime.clone(),
            max_batch_size: i32::try_from(configuration.max_batch).unwrap_or(i32::MAX),
            input,
            output,
            backend: "vjepa".to_owned(),
            scheduling_choice: self.0.info.joined().then_some(SchedulingChoice::DynamicBatching(dynamic)),
        };
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let asked = request.into_inner();
        protocol::check_repository(&asked.repository_name)?;
        let (state, reason) = protocol::state(self.0.ready().await);
        let model =
            ModelIndex { name: self.0.info.name.clone(), version: VERSION.to_owned(), state: state.to_owned(), reason };
        let models = if asked.ready && model.state != protocol::READY { Vec::new() } else { vec![model] };
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let name = Some(request.get_ref().name.as_str()).filter(|name| !name.is_empty());
        self.0.check_model(name.unwrap_or(&self.0.info.name), &request.get_ref().version)?;
        let all = self.0.metrics.statistics();
        let sum = |sum: Sum| Some(StatisticDuration { count: sum.count, ns: sum.ns });
        // Triton counts copies along with each run; perf_analyzer requires equal counts.
        let none = |run: Sum| sum(run.without_time());
        let batch = |(clips, time): (&usize, &Sum)| InferBatchStatistics {
            batch_size: *clips as u64,
            compute_input: none(*time),
            compute_infer: sum(*time),
            compute_output: none(*time),
        };
        let statistics = ModelStatistics {
            name: self.0.info.name.clone(),
            version: VERSION.to_owned(),
            last_inference: all.last_ms,
            inference_count: all.clips,
            execution_count: all.runs,
            inference_stats: Some(InferStatistics {
                success: sum(all.success),
                fail: sum(all.fail),
                queue: sum(all.queue),
                compute_input: none(all.compute),
                compute_infer: sum(all.compute),
                compute_output: none(all.compute),
                cache_hit: sum(Sum::default()),
                cache_miss: sum(Sum::default()),
            }),
            batch_stats: all.batches.iter().map(batch).collect(),
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats: vec![statistics] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("3S"), Some(Duration::from_secs(3)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "1", "1x", "-1S", "99999999999999999999S"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_deadline_does_not_take_the_other_away() {
        let [zero, short, long] = [0, 500, 900].map(|ms| Some(Duration::from_millis(ms)));
        for (one, other, wanted) in
            [(short, zero, short), (zero, short, short), (long, short, short), (zero, None, None)]
        {
            assert_eq!(earlier(one, other), wanted);
        }
    }
}
