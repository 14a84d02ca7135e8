"""Claim extraction by a language model behind an OpenAI-compatible server.

The model only reads: it lists claims, each with a quotation from the text, and the graph judges them. A claim whose
quotation is not in the text is dropped; one that cannot be placed in the graph's vocabulary is reported as unread.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dermiq.files import Changes, ResumableLines, whole_lines
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.language.extraction import Extraction
from dermiq.kg.readers.placing import RELATIONS_READ, Placer
from dermiq.ranges import SECONDS, check_numbers
from dermiq.schema import KnowledgeError
from dermiq.servers import call

_LOG = logging.getLogger(__name__)
_REMEDY = (
    "Start an OpenAI-compatible server (`vllm serve MODEL`, `llama-server -m FILE`) and give its address as `url`."
)
_ATTEMPTS = 2  # a model at temperature 0 may still answer otherwise, and a server may have been busy
_CLAIM = {
    "quote": {"type": "string"},
    "subject": {"type": "string"},
    "relation": {"enum": list(RELATIONS_READ)},
    "value": {"type": "string"},
    "denied": {"type": "boolean"},
    "hedged": {"type": "boolean"},
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "claims": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": _CLAIM,
                "required": list(_CLAIM),
                "additionalProperties": False,
            },
        }
    },
    "required": ["claims"],
    "additionalProperties": False,
}
INSTRUCTION = """You list the claims that a text makes about skin conditions. You do not judge whether they are true.

One claim for each single statement, as JSON: {{"claims": [{{"quote": …, "subject": …, "relation": …, "value": …, \
"denied": …, "hedged": …}}]}}.
* quote: the words of the text that make the claim, copied exactly.
* subject: the condition that the claim is about; "case" for the patient's own ("it", "this rash").
* relation: one of
{relations}
* value: what is claimed, as short as possible: one site, one drug, one sign, one condition.
* denied: true if the text says that it is not so. hedged: true if the text says so with reserve.
Questions, conditions ("if it bleeds …"), disclaimers and what somebody else believed are no claims. A text without a \
claim gives {{"claims": []}}.
""".format(relations="\n".join(f"  - {name}: {meaning}" for name, meaning in RELATIONS_READ.items()))


@dataclass(eq=False)
class LanguageModelReader:
    """Reads claims with a language model; for evaluation and for choosing pairs, where a second per text is no matter.

    Args:
        url: of the server, without a path, such as ``http://localhost:8000``.
        model: its name at the server.
        cache: JSONL file that keeps the replies, by text; None keeps them as long as the process lives.
        timeout: seconds to wait for a reply.
    """

    url: str
    model: str
    cache: Path | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_numbers(self, timeout=SECONDS)
        if not self.url.startswith(("http://", "https://")):
            raise KnowledgeError(f"A reader needs a url such as http://localhost:8000; got {self.url!r}.")

    def on(self, graph: KnowledgeGraph) -> BoundReader:
        """The reader in the vocabulary of a graph."""
        return BoundReader(self, graph)

    def claims(self, text: str, case: str) -> list[Any] | None:
        """The claims as the model lists them, from the cache where it has them; None if its reply is junk.

        Args:
            text: to be read.
            case: name of the condition in question.

        Raises:
            TrainingError: if the server cannot be reached, refuses, or is late.
        """
        message = f"The case: {case}\n\nThe text:\n{text}"
        key = hashlib.sha256(message.encode("utf-8", "surrogatepass")).hexdigest()
        replies = self._cached
        for _ in range(_ATTEMPTS):
            known = key in replies
            reply = replies[key] if known else self._ask(message)
            listed = _listed(reply)
            if listed is not None:
                if not known:
                    self._keep(key, reply)
                return listed
        _LOG.warning(
            "%s: no list of claims in %d replies of %s; the text counts as unread.", self.url, _ATTEMPTS, self.model
        )
        return None

    def _ask(self, message: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": message}],
            "temperature": 0.0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "claims", "schema": _SCHEMA, "strict": True},
            },
        }
        data = call(f"{self.url.rstrip('/')}/v1/chat/completions", body, self.timeout, _REMEDY)
        try:
            content = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        return content if isinstance(content, str) else ""

    @cached_property
    def _file(self) -> ResumableLines[dict[str, str]] | None:
        if self.cache is None:
            return None
        instruction = hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:16]
        return ResumableLines(self.cache, {"model": self.model, "instruction": instruction}, _read_cache, _refusal)

    @cached_property
    def _cached(self) -> dict[str, str]:
        """Digest of a message -> reply."""
        return {row["key"]: row["reply"] for row in self._file.rows} if self._file else {}

    def _keep(self, key: str, reply: str) -> None:
        self._cached[key] = reply
        if self._file:
            self._file.append([{"key": key, "reply": reply}])


class BoundReader:
    """A `dermiq.kg.language.extraction.Reader`: a language model's claims, placed in the vocabulary of a graph."""

    def __init__(self, model: LanguageModelReader, graph: KnowledgeGraph) -> None:
        self._model = model
        self._graph = graph
        self._placer = Placer(graph)

    def read(self, text: str, case: str) -> Extraction:
        """See `dermiq.kg.language.extraction.Reader.read`."""
        if not text.strip():
            return Extraction([])
        listed = self._model.claims(text, self._graph.label(case))
        if listed is None:
            return Extraction([], [(0, len(text))])
        return self._placer.place(listed, text, case)


def _listed(reply: str) -> list[Any] | None:
    """The list of claims in a reply, bare or in a code block; None without one."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        content = json.loads(reply[start : end + 1])
    except (ValueError, RecursionError):
        return None
    claims = content.get("claims") if isinstance(content, Mapping) else None
    return claims if isinstance(claims, list) else None


def _read_cache(path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    try:
        header, *rows = map(json.loads, whole_lines(path))
        if not all(isinstance(row["key"], str) and isinstance(row["reply"], str) for row in rows):
            raise ValueError
    except (ValueError, LookupError, TypeError) as error:
        raise KnowledgeError(f"{path} is no cache of replies, or damaged. Delete it, or name another file.") from error
    return header, rows


def _refusal(path: Path, changes: Changes) -> KnowledgeError:
    what = ", ".join(f"{name} was {there!r}, is {here!r}" for name, (there, here) in changes.items())
    return KnowledgeError(f"{path} holds replies of another reader ({what}). Name another file.")
