"""`zerotrust serve module:app`: uvicorn's command, with an identity and a policy.

1. Every option of uvicorn is there; one that would weaken the connection says why it is refused.
2. The parent of several workers, or of a reloading one, never imports the application.
"""

from __future__ import annotations

import copy
import sys
from typing import Any, Final

import click
from click.core import ParameterSource
from uvicorn.config import LOGGING_CONFIG
from uvicorn.main import main as uvicorn_command

from zerotrust.asgi.serving import Serving
from zerotrust.asgi.workers import INHERIT, Inheritance
from zerotrust.core.errors import UnsafeSetting
from zerotrust.workload.hygiene import environment_warnings, harden_process

_KEYS: Final = "keys, certificates and trust come from --identity, which renews them"
REFUSED: Final = {  # uvicorn's option -> why it has no place here
    "uds": "over a unix socket nobody shows a certificate; mutual TLS needs TCP, so use --port",
    "fd": "the descriptor may be a unix socket, where nobody shows a certificate",
    "proxy_headers": "a header is not an identity; the caller is whom the TLS handshake proved",
    "forwarded_allow_ips": "an address is not an identity",
    "server_header": "the server does not tell what it is",
    "http2": "only HTTP/1.1 is served",
    **dict.fromkeys(("ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_ca_certs"), _KEYS),
    "ssl_version": "TLS 1.3 only",
    "ssl_cert_reqs": "every caller shows a certificate",
    "ssl_ciphers": "TLS 1.3's own",
}


class _Command(click.Command):
    """Keeps its arguments: workers are this command again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["zerotrust.arguments"] = tuple(args)
        return super().parse_args(ctx, args)


def _uvicorn_options() -> list[click.Parameter]:
    options: list[click.Parameter] = []
    for option in uvicorn_command.params:
        if option.name in {"app", "version"}:
            continue
        ours = copy.copy(option)
        if option.name in REFUSED and isinstance(ours, click.Option):
            ours.hidden = True
        options.append(ours)
    return options


@click.command("serve", cls=_Command)
@click.argument("app")
@click.option("--policy", type=click.Path(), help="Who may call what; for an app that is bare.")
@click.option("--identity", metavar="URL", help="files:DIR, ca:TOKENFILE, ca:unix:PATH.")
@click.option(
    "--authority", "authorities", multiple=True, help="A further host[:port] that we answer for."
)
@click.option("--health-port", type=int, help="Answer liveness probes on 127.0.0.1, in the clear.")
@click.option("--audit", type=click.Path(), help="Audit log file; standard error if not given.")
@click.option("--audit-calls", is_flag=True, help="One audit line for each allowed call too.")
@click.option(INHERIT, "inherit", hidden=True)
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Serve APP (module:attribute), bare with --policy or already protecting itself."""
    _refuse_weakening(ctx)
    harden_process()
    for warning in environment_warnings():
        click.echo(f"warning: {warning}", err=True)
    inherit = given.pop("inherit")
    ours = {
        name: given.pop(name)
        for name in (
            "app",
            "policy",
            "identity",
            "authorities",
            "health_port",
            "audit",
            "audit_calls",
        )
    }
    serving = Serving(
        **ours,
        inherited=Inheritance.parse(inherit) if inherit is not None else None,
        options=_for_uvicorn(given),
    )
    ctx.exit(serving.run(ctx.meta["zerotrust.arguments"]))


command.params += _uvicorn_options()


def _refuse_weakening(ctx: click.Context) -> None:
    for option in command.params:
        reason = REFUSED.get(option.name or "")
        if (
            reason is not None
            and ctx.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
            and ctx.params[option.name or ""] is not False
        ):
            raise UnsafeSetting(f"{option.opts[0]}: {reason}")


def _for_uvicorn(given: dict[str, Any]) -> dict[str, Any]:
    """Turn the command's options into those of uvicorn's Config, as uvicorn itself does."""
    options = {name: value for name, value in given.items() if name not in REFUSED}
    for name in ("reload_dirs", "reload_includes", "reload_excludes"):
        options[name] = list(options[name]) or None
    options["headers"] = [tuple(header.split(":", 1)) for header in options["headers"]]
    options["log_config"] = options["log_config"] or LOGGING_CONFIG
    if options["timeout_graceful_shutdown"] is None:
        del options["timeout_graceful_shutdown"]
    sys.path.insert(0, options.pop("app_dir"))
    return options
