"""The services of the API as they are described: a new one is in no list, and cannot be forgotten."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from google.protobuf.descriptor import ServiceDescriptor

import pdp.v1

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in pkgutil.iter_modules(pdp.v1.__path__)
    if module.name.endswith("_pb2")
    for service in import_module(f"pdp.v1.{module.name}").DESCRIPTOR.services_by_name.values()
)
