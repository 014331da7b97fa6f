"""`pdp bundle build`, `keygen`, `sign`, `verify` and `show`: packed bundles, without a server."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pdp.app.embedded import compile_once
from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import HIGHEST_NUMBER, pack, read_packed
from pdp.bundles.signing import Trust, generate_key, read_public_keys
from pdp.bundles.signing import sign as signed
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_fields, print_json, print_table, progress, replace_file
from pdp.cli.problems import problems_in
from pdp.cli.root import NO
from pdp.config.settings import Settings
from pdp.errors import BundleError, ConfigurationError
from pdp.foundation.files import new_file
from pdp.policy.contents import read_folder, titles_of
from pdp.policy.loading import check_bundle

_OUTPUT = click.option("-o", "--output", metavar="FILE", required=True, help="The file to write.")


@click.command(epilog="Example:  pdp bundle build policies -o policies.bundle")
@click.argument("folder", metavar="[DIR]", required=False)
@_OUTPUT
@json_option
@with_settings("policies.folder")
def build(*, settings: Settings, folder: str | None, output: str, as_json: bool) -> None:
    """Check a policy folder, and pack it into one file.

    The same content gives the same bytes, whatever the times, order and modes of the files. Prints the version. Exits
    with 1, and writes nothing, if the bundle does not load.
    """
    path = Path(folder or settings.policies.folder)
    with problems_in(path):
        files = read_folder(path, settings.limits)
    try:
        with problems_in(path), progress("checking the policies"):
            check_bundle(files, settings.limits, compile_once())
    except BundleError as error:
        for problem in error.problems:
            click.echo(str(problem))
        raise click.exceptions.Exit(NO) from None
    delivery = Delivery(files=files)
    replace_file(Path(output), pack(files))
    if as_json:
        print_json(_plain(delivery))
    else:
        click.echo(delivery.version)


@click.command(epilog="Example:  pdp bundle keygen -o release.key")
@_OUTPUT
@json_option
def keygen(*, output: str, as_json: bool) -> None:
    """Create an Ed25519 key pair for signing bundles.

    Writes the private key to FILE, readable only by its owner, and the public key to FILE.pub. Never overwrites a file.
    """
    private, public = Path(output), Path(f"{output}.pub")
    if public.exists():
        raise ConfigurationError(f"`{public}` exists; keys are never overwritten")
    private_pem, public_pem = generate_key()
    try:
        with new_file(private) as file:
            file.write(private_pem)
    except FileExistsError:
        raise ConfigurationError(f"`{private}` exists; keys are never overwritten") from None
    public.write_bytes(public_pem)
    key_id = next(iter(read_public_keys(public_pem)))
    if as_json:
        print_json({"key_id": key_id, "private_key": str(private), "public_key": str(public)})
    else:
        click.echo(key_id)


@click.command(epilog="Example:  pdp bundle sign policies.bundle --key release.key --number 42")
@click.argument("file", metavar="FILE")
@click.option("--key", "key_file", metavar="FILE", required=True, help="The private key, in PEM.")
@click.option(
    "--number",
    metavar="N",
    type=click.IntRange(1, HIGHEST_NUMBER),
    help="A number that grows with each bundle, such as a build's. [the unix time]",
)
@click.option("-o", "--output", metavar="FILE", help="The file to write. [the same file]")
@json_option
@with_settings()
def sign(
    *, settings: Settings, file: str, key_file: str, number: int | None, output: str | None, as_json: bool
) -> None:
    """Sign a packed bundle together with a number.

    A server with `policies.never_older` activates a bundle by itself only if its number is higher than any that was
    active. Replaces a signature that the file already has. Prints the version, the number and the id of the key.
    """
    delivery = read_packed(Path(file), settings.limits)
    try:
        result = signed(delivery, Path(key_file).read_bytes(), number or int(time.time()))
    except ConfigurationError as error:
        raise ConfigurationError(f"`{key_file}`: {error}") from None
    replace_file(Path(output or file), pack(result.files, result.signature))
    _print(result, as_json=as_json)


@click.command(epilog="Example:  pdp bundle verify policies.bundle --key release.key.pub")
@click.argument("file", metavar="FILE")
@click.option("--key", "key_file", metavar="FILE", required=True, help="The public keys that are trusted, in PEM.")
@json_option
@with_settings()
def verify(*, settings: Settings, file: str, key_file: str, as_json: bool) -> None:
    """Verify that a packed bundle is intact, and was signed by a trusted key.

    Exits with 1 when it is not.
    """
    try:
        trust = Trust(keys=read_public_keys(Path(key_file).read_bytes()), required=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"`{key_file}` {error}") from None
    try:
        delivery = read_packed(Path(file), settings.limits)
        trust.verify(delivery)
    except BundleError as error:
        for problem in error.problems:
            click.echo(problem.message if not problem.file else str(problem))
        raise click.exceptions.Exit(NO) from None
    _print(delivery, as_json=as_json)


@click.command(epilog="Example:  pdp bundle show policies.bundle --json")
@click.argument("file", metavar="FILE")
@json_option
@with_settings()
def show(*, settings: Settings, file: str, as_json: bool) -> None:
    """Show what a packed bundle holds. Does not verify its signature; `pdp bundle verify` does."""
    delivery = read_packed(Path(file), settings.limits)
    name, label = titles_of(delivery.files)
    sizes = [(path, len(content)) for path, content in sorted(delivery.files.items())]
    if as_json:
        listed = [{"path": path, "size": size} for path, size in sizes]
        print_json({**_plain(delivery), "name": name, "label": label, "files": listed})
        return
    print_fields([*_fields(delivery), ("name", name), ("label", label)])
    click.echo()
    print_table(("file", "bytes"), [(path, str(size)) for path, size in sizes])


def _print(delivery: Delivery, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(delivery))
    else:
        print_fields(_fields(delivery))


def _plain(delivery: Delivery) -> dict[str, str]:
    return {key.replace(" ", "_"): value for key, value in _fields(delivery)}


def _fields(delivery: Delivery) -> list[tuple[str, str]]:
    signature = delivery.signature
    return [
        ("version", delivery.version),
        ("number", str(signature.number) if signature else ""),
        ("signed by", signature.key_id if signature else ""),
    ]
