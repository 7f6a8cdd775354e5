"""Refusals: every answer that the gateway makes itself, each with its status and its code.

Refusal
├── BadRequest 400          bad_request, bad_context, bad_tensor, bad_body, bad_feedback
├── Unauthorised 401        unauthorised
├── Forbidden 403           force_not_allowed, feedback_not_allowed
├── NotFound 404            unknown_path, unknown_model, unknown_version, no_rule
├── MethodNotAllowed 405    method_not_allowed
├── Late 408                request_timeout
├── TooLarge 413            request_too_large
├── Broken 500              internal_error
├── UpstreamFailed 502      upstream_connect_failed, upstream_reset, upstream_protocol_error, ...
├── Unavailable 503         journal_unavailable, journal_full, no_table, overloaded, draining, ...
└── TooLate 504             upstream_timeout

`CODES` is the one table of codes: documentation, metrics and `x-headworks-error` come from it. A
refusal is turned into bytes once, at the border (`dataplane/handler.py`), in the caller's protocol.
"""

from __future__ import annotations

CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request is not valid HTTP or not one this path takes."),
    "bad_context": (400, "x-headworks-subject or x-headworks-groups cannot be read."),
    "bad_body": (400, "The body is not a request of the model's protocol."),
    "bad_feedback": (400, "A line is no label of a decision (docs/monitoring.md)."),
    "bad_tensor": (400, "A tensor's name, shape, type or value does not fit the model."),
    "unauthorised": (401, "The bearer token is missing or belongs to no caller."),
    "force_not_allowed": (403, "The caller may not choose the version."),
    "feedback_not_allowed": (403, "The caller may not give feedback."),
    "unknown_path": (404, "No model is served at this path."),
    "unknown_model": (404, "There is no model of this name."),
    "unknown_version": (404, "The model has no version of this name."),
    "no_rule": (404, "No rule of the model matches the request."),
    "method_not_allowed": (405, "The path does not take this method."),
    "request_timeout": (408, "The body did not come in time (clients.body)."),
    "client_gone": (499, "The client left before it was answered."),
    "client_too_slow": (499, "The client did not take its answer in time (clients.write)."),
    "request_too_large": (413, "The body is longer than limits.request."),
    "headers_too_large": (431, "The head is longer or has more headers than allowed."),
    "internal_error": (500, "The gateway failed; its log says why."),
    "upstream_connect_failed": (502, "No connection to the upstream."),
    "upstream_reset": (502, "The upstream closed the connection within its answer."),
    "upstream_protocol_error": (502, "The upstream's answer is not valid HTTP."),
    "model_failed": (500, "The in-process model raised an error."),
    "answer_cut": (502, "The stream was cut: its final record could not be written."),
    "journal_unavailable": (503, "The record could not be written; the answer was withheld."),
    "journal_full": (503, "The disk, or a store's budget of it, is used up."),
    "no_table": (503, "No routing table has been published yet."),
    "overloaded": (503, "Too many open exchanges for this version."),
    "shed": (503, "Too many open exchanges for the priority of this one."),
    "memory_full": (503, "Request bodies take all of overload.bodies."),
    "too_many_connections": (503, "Clients have clients.connections open already."),
    "upstream_overloaded": (503, "Too many exchanges wait for a connection to the upstream."),
    "upstream_unavailable": (503, "No endpoint of the version is healthy."),
    "upstream_credentials": (503, "The credential that the upstream wants is not there."),
    "draining": (503, "This process is about to stop."),
    "upstream_timeout": (504, "The upstream did not answer in time."),
}


class Refusal(Exception):
    """An expected failure: `code` of `CODES`, and words that name the field and the value."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = CODES[code][0]
        self.message = message


class JournalUnavailable(Exception):
    """A record cannot be made durable: full, stalled or broken. Nothing may be released."""
