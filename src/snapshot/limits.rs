//! The numbers of the settings, as a core goes by them.

use crate::model::Settings;
use crate::proto::h1::parse::{HeadLimits, Underscores};
use crate::proto::h2::H2Limits;
use crate::runtime::Limits;

/// The settings' numbers, as a core reads them.
pub fn limits_of(settings: &Settings) -> Limits {
    let set = &settings.limits;
    Limits {
        head: HeadLimits {
            head_bytes_max: set.head_bytes,
            line_bytes_max: set.line_bytes,
            headers_max: set.headers,
            underscores: Underscores::Reject,
        },
        upstream_head: HeadLimits { head_bytes_max: set.upstream_head_bytes, ..HeadLimits::RESPONSE },
        head_timeout: set.head_timeout.get(),
        handshake_timeout: set.handshake_timeout.get(),
        handshakes_waiting_max: set.handshakes_waiting_max,
        body_timeout: set.body_timeout.get(),
        write_timeout: set.write_timeout.get(),
        keepalive_timeout: set.keepalive_timeout.get(),
        keepalive_requests: if set.keepalive_timeout.bound().is_some() { set.keepalive_requests } else { 1 },
        body_bytes_max: set.body_bytes,
        drain_body_bytes: set.drain_body_bytes,
        drain_body_timeout: set.drain_body_timeout.get(),
        interim_responses: set.interim_responses,
        connections_max: set.connections_max,
        connections_per_address: set.connections_per_address,
        held_body_bytes: set.held_body_bytes,
        routed_body_bytes: set.routed_body_bytes,
        retries: set.retries,
        retry_budget_percent: u32::from(set.retry_budget_percent.get()),
        retry_budget_per_second: set.retry_budget_per_second,
        buffers_kept: set.buffers_idle,
        log_batch_bytes: settings.access_log.buffer_bytes,
        log_batch_age: settings.access_log.flush_interval.get(),
        buffer_bytes: set.buffer_bytes,
        tunnel_timeout: set.tunnel_timeout.bound(),
        tunnel_close_timeout: set.tunnel_close_timeout.get(),
        stream_idle: settings.stream_proxy.idle_timeout.bound(),
        preread_bytes: settings.stream_proxy.preread_bytes,
        preread_timeout: settings.stream_proxy.preread_timeout.get(),
        udp_sessions: settings.stream_proxy.udp_sessions,
        udp_idle: settings.stream_proxy.udp_idle_timeout.bound(),
        datagram_bytes: settings.stream_proxy.datagram_bytes,
        http2: settings.http2.enabled.then(|| http2_of(settings)),
        ..Limits::default()
    }
}

fn http2_of(settings: &Settings) -> H2Limits {
    let set = &settings.http2;
    H2Limits {
        streams_max: set.streams,
        stream_window: set.stream_window,
        connection_window: set.connection_window,
        // A head is as large as it may be in HTTP/1; 32 bytes a line are what RFC 9113 adds.
        header_bytes_max: u32::try_from(settings.limits.head_bytes + 32 * settings.limits.headers)
            .unwrap_or(u32::MAX),
        resets_unseen_max: set.resets_unseen,
        resets_owed_max: set.resets_owed,
    }
}
