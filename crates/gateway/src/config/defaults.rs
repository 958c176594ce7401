//! The default of every field: the one place where they are written.

/// `server.listen`.
pub const LISTEN: &str = "127.0.0.1:8080";
/// `server.admin`.
pub const ADMIN: &str = "127.0.0.1:9090";
/// `server.head_bytes_max`.
pub const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// `server.headers_max`: what hyper itself accepts unless told otherwise.
pub const HEADERS_MAX: u64 = 100;
/// `server.body_bytes_max`: Anthropic's own bound, the largest that a provider publishes.
pub const BODY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// `server.connections_max`.
pub const CONNECTIONS_MAX: u64 = 16_384;
/// `server.head_timeout`.
pub const HEAD_TIMEOUT: &str = "10s";
/// `server.body_timeout`.
pub const BODY_TIMEOUT: &str = "30s";
/// `server.idle_timeout`.
pub const SERVER_IDLE_TIMEOUT: &str = "60s";
/// `server.drain_timeout`.
pub const DRAIN_TIMEOUT: &str = "30s";
/// `server.stream_drain_timeout`.
pub const STREAM_DRAIN_TIMEOUT: &str = "10m";
/// `server.queue_requests_max`.
pub const QUEUE_REQUESTS_MAX: u64 = 10_000;
/// `server.queue_bytes_max`.
pub const QUEUE_BYTES_MAX: u64 = 1 << 30;
/// `server.max_wait`: the read timeout of the OpenAI and Anthropic SDKs.
pub const MAX_WAIT: &str = "10m";
/// `upstreams.window`.
pub const WINDOW: &str = "60s";
/// `upstreams.guarantee`.
pub const GUARANTEE: &str = "statistical";
/// `upstreams.epsilon`.
pub const EPSILON: f64 = 0.001;
/// `upstreams.limits_refresh`.
pub const LIMITS_REFRESH: &str = "5m";
/// `upstreams.http2`.
pub const HTTP2: &str = "auto";
/// `upstreams.connect_timeout`.
pub const CONNECT_TIMEOUT: &str = "10s";
/// `upstreams.first_byte_timeout`: the read timeout of the OpenAI and Anthropic SDKs.
pub const FIRST_BYTE_TIMEOUT: &str = "10m";
/// `upstreams.idle_timeout`.
pub const UPSTREAM_IDLE_TIMEOUT: &str = "5m";
/// `upstreams.permit_ttl`.
pub const PERMIT_TTL: &str = "100ms";
/// `retry.backoff_min`.
pub const BACKOFF_MIN: &str = "1s";
/// `retry.backoff_max`.
pub const BACKOFF_MAX: &str = "60s";
/// `retry.horizon`.
pub const RETRY_HORIZON: &str = "90s";
/// `retry.budget_percent`.
pub const RETRY_BUDGET_PERCENT: u64 = 20;
/// `retry.budget_floor`.
pub const RETRY_BUDGET_FLOOR: u64 = 100;
/// `store.prefix`.
pub const STORE_PREFIX: &str = "tidegate";
/// `store.share`.
pub const STORE_SHARE: f64 = 0.5;
/// `store.share_for`: with the usual share, a killed one of three gateways strands a sixth of a quota for less than two minutes.
pub const STORE_SHARE_FOR: &str = "45s";
/// `store.lease`.
pub const STORE_LEASE: &str = "30s";
/// `tenants.weight`.
pub const WEIGHT: u64 = 1;
/// `tenants.priority`.
pub const PRIORITY: &str = "normal";
/// The names of the priorities, the most urgent first.
pub const PRIORITIES: [&str; 4] = ["high", "normal", "low", "batch"];
/// `tenants.order`.
pub const ORDER: &str = "arrival";
/// `priorities`, in the order of [`PRIORITIES`]: those of the engine itself.
pub const SHARES: [u64; 4] = [5, 5, 5, 0];
/// `runs.idle`.
pub const RUN_IDLE: &str = "1h";
