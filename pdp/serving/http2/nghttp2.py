"""The engine by libnghttp2, through the binding `ngh2`. No other module imports it, and few of its calls are used."""

from __future__ import annotations

from collections.abc import Iterable

import ngh2
from ngh2 import DataReceived, RequestReceived, StreamClosed

from pdp.serving.http2.bounds import Bounds
from pdp.serving.http2.engine import BrokenPeerError, Header, Receiver

# Above the bounds of the connection, which refuses one call where the library would end the connection.
_HEADER_BYTES_FACTOR = 2
_NO_ERROR, _CANCEL, _CALM = 0x0, 0x8, 0xB
_GOAWAY = 0x7
_PREFIX_BYTES = 5


class NGHTTP2Engine:
    """A server's connection within the bounds of one peer."""

    def __init__(self, bounds: Bounds) -> None:
        self._connection = ngh2.Connection(
            ngh2.Role.SERVER,
            ngh2.Configuration(
                auto_window_update=False,
                max_inbound_header_list_size=_HEADER_BYTES_FACTOR * bounds.header_bytes,
                peer_max_concurrent_streams=bounds.streams,
            ),
        )
        self._connection.initiate_connection(
            {
                ngh2.Setting.MAX_CONCURRENT_STREAMS: bounds.streams,
                ngh2.Setting.MAX_HEADER_LIST_SIZE: bounds.header_bytes,
                # A whole message can come before more is given.
                ngh2.Setting.INITIAL_WINDOW_SIZE: bounds.message_bytes + _PREFIX_BYTES,
                ngh2.Setting.ENABLE_PUSH: 0,
            }
        )
        self._connection.set_local_window_size(max(bounds.incoming_bytes, bounds.message_bytes + _PREFIX_BYTES))
        self._out = b""
        self._last_stream = 0

    def receive(self, data: bytes, receiver: Receiver) -> None:
        """Take bytes from the peer, and tell the receiver of each event."""
        try:
            self._connection.receive_data(data)
            events = self._connection.events()
        except ngh2.NGH2Error as error:
            self._tell_why()
            raise BrokenPeerError(f"HTTP/2 was broken: {error}") from None
        for event in events:
            # The first three come with each call.
            if isinstance(event, DataReceived):
                receiver.came(event.stream_id, event.data, ended=event.end_stream)
            elif isinstance(event, RequestReceived):
                self._last_stream = event.stream_id
                receiver.begun(event.stream_id, event.headers, ended=event.end_stream)
            elif isinstance(event, StreamClosed):
                receiver.over(event.stream_id, reset=False)
            elif isinstance(event, ngh2.StreamReset):
                receiver.over(event.stream_id, reset=True)
            elif isinstance(event, ngh2.TrailersReceived):
                receiver.came(event.stream_id, b"", ended=True)
            elif isinstance(event, ngh2.PingReceived | ngh2.SettingsReceived):
                receiver.controlled()
        # The library is at an end once it has written why.
        self._write()
        if not self._connection.want_read:
            raise BrokenPeerError("HTTP/2 was broken, and the peer was told so")

    def respond(self, stream: int, headers: Iterable[Header], *, ends: bool = False) -> None:
        """Send the headers of an answer."""
        try:
            self._connection.send_response(stream, headers, end_stream=ends)
        except ngh2.NGH2Error:
            pass

    def send(self, stream: int, data: bytes) -> None:
        """Send a part of the body of an answer."""
        try:
            self._connection.send_data(stream, data)
        except ngh2.NGH2Error:
            pass

    def end(self, stream: int, trailers: Iterable[Header]) -> None:
        """End an answer with trailers, after its body."""
        try:
            self._connection.send_trailers(stream, trailers)
        except ngh2.NGH2Error:
            pass

    def reset(self, stream: int, *, cancels: bool) -> None:
        """End a stream after what was sent on it: the library would drop what it has not written yet."""
        self._write()
        try:
            self._connection.reset_stream(stream, _CANCEL if cancels else _NO_ERROR)
        except ngh2.NGH2Error:
            pass

    def give(self, stream: int, count: int) -> None:
        """Let the peer send as many bytes again."""
        try:
            self._connection.acknowledge_received_data(count, stream)
        except ngh2.NGH2Error:
            pass

    def ping(self) -> None:
        """Ask for a sign of life."""
        try:
            self._connection.ping()
        except ngh2.NGH2Error:
            pass

    def announce(self) -> None:
        """Send the first of the two GOAWAY that RFC 9113, section 6.8, advises: it names no last stream."""
        try:
            self._connection.send_shutdown_notice()
        except ngh2.NGH2Error:
            pass

    def leave(self, *, at_once: bool) -> None:
        """Tell the peer to begin no more streams."""
        try:
            if at_once:
                self._connection.terminate_connection(_CALM)
            else:
                self._connection.send_goaway(_NO_ERROR)
        except ngh2.NGH2Error:
            pass

    def outgoing(self) -> bytes:
        """Return the bytes for the peer since the last time."""
        self._write()
        out, self._out = self._out, b""
        return out

    @property
    def unsent(self) -> int:
        """Return how many bytes `outgoing` has already: the peer's windows hold none of them back."""
        return len(self._out)

    def queued(self, stream: int) -> int:
        """Return how many bytes of the body of one stream wait for the peer's windows."""
        return self._connection.queued_body_size(stream)

    @property
    def waiting(self) -> int:
        """Return how many bytes of bodies wait for the peer's windows."""
        return self._connection.queued_body_size()

    def _write(self) -> None:
        # What the library had to say before the connection broke, it says; then it has nothing more.
        try:
            if self._connection.want_write:
                self._out += self._connection.data_to_send()
        except ngh2.NGH2Error:
            pass

    def _tell_why(self) -> None:
        """Write the GOAWAY that the binding leaves out when a bound of its own ends the connection."""
        length = (8).to_bytes(3)
        # A client may repeat what came after the last stream: not the calls that were handed out.
        self._out += length + bytes([_GOAWAY, 0]) + bytes(4) + self._last_stream.to_bytes(4) + _CALM.to_bytes(4)
