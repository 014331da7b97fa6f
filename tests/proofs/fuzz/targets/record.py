"""The readers of the record: whatever stands in a segment, it is read, indexed, searched and verified."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path

from pdp.audit.searchable import SearchableRecord
from pdp.audit.values import Filter
from pdp.errors import NotFoundError
from pdp.record.envelope import Place, own_body, placed
from pdp.record.keys import PublicKeys, SigningKey
from pdp.record.reader import read_records
from pdp.record.verify import verify

CHAIN = "0f3a9c51d2e7"
WORDS = (
    *('"kind":"decision"', '"kind":"checkpoint"', '"kind":"segment.opened"', '"kind":"session.approved"', '"time":"'),
    *('"session_id":', '"outcome":"allow"', '"basis":', '"policies":[', '"facts":{', '"heads":{', '"ancestors":['),
    *('"chain":"0f3a9c51d2e7","seq":', ',"prev":"', '"resource_id":', '"arguments":{', '"tenant":', "null", "1e999"),
)
_DECISION = (
    b'{"agent":"coder","ancestors":["ses_p"],"arguments":{"x":"y"},"basis":"permit","bundle_version":"sha256:1",'
    b'"caller_id":"gateway","duration_us":12.5,"id":"dec_1","kind":"decision","outcome":"allow","policies":["a/b"],'
    b'"resource_id":"r","resource_type":"Thing","server":"a","session_id":"ses_1","tenant":"default",'
    b'"time":"2026-01-01T00:00:00.000000Z","tool":"b","user":"alice","v":1'
)
_EVENT = (
    b'{"agent":"coder","caller_id":"ann","facts":{"request_digest":"sha256:2"},"kind":"session.approved",'
    b'"session_id":"ses_1","tenant":"default","time":"2026-01-01T00:00:00.000000Z","user":"alice","v":1'
)


def _line(body: bytes, seq: int) -> bytes:
    return placed(body, Place(CHAIN, seq, "0" * 64)) + b"\n"


SEEDS = (
    _line(_DECISION, 1),
    _line(_EVENT, 1) + _line(_DECISION, 2),
    _line(own_body("segment.opened", 0.0, number=1, heads={CHAIN: "1:" + "0" * 64}), 1) + _line(_DECISION, 2),
    _line(own_body("checkpoint", 0.0, key="k", signature="s", final=True), 1),
    b'{"kind":7,"time":[],"id":{},"policies":"x","ancestors":5,"facts":[],"outcome":null,"session_id":1e999}\n',
    b"\n\n{}\n[]\n\xff\n{",
)
_KEYS = PublicKeys.of(SigningKey.generate())
_ROOT = Path(tempfile.mkdtemp(prefix="pdp-fuzz-"))
atexit.register(shutil.rmtree, _ROOT, ignore_errors=True)
_NUMBERS = itertools.count()


def run(data: bytes) -> None:
    """Read, verify and search a record of one segment."""
    folder = _ROOT / str(next(_NUMBERS))
    folder.mkdir()
    try:
        (folder / f"record-{CHAIN}-000001.jsonl").write_bytes(data)
        records = [found.record for found in read_records(folder, on_broken=lambda _, __: None)]
        for finding in verify(folder, _KEYS).findings:
            assert str(finding).isprintable(), "a finding that is not one printable line"
        _search(SearchableRecord(folder), len(records))
    finally:
        shutil.rmtree(folder)


def _search(searchable: SearchableRecord, records: int) -> None:
    try:
        search = searchable.search()
        assert len(search.latest(Filter(), limit=records + 10)) <= records
        for tenant in (None, "default"):
            list(search.all(Filter(tenant=tenant)))
            with contextlib.suppress(NotFoundError):
                search.show("dec_1", tenant=tenant)
    finally:
        searchable.close()
