"""Claims read by a language model: they are placed in the graph's vocabulary, whatever a server makes of its task."""

import json

import pytest

from dermiq.kg import KGScorer, LanguageModelReader
from dermiq.kg.records import as_record
from dermiq.schema import KnowledgeError, TrainingError
from support.chat_server import chat_server

TEXT = "Scabies is caused by a mite. It may itch. It is not contagious, and antibiotics cure it."


def claim(quote, relation, value, subject="case", denied=False, hedged=False):
    return {
        "quote": quote,
        "subject": subject,
        "relation": relation,
        "value": value,
        "denied": denied,
        "hedged": hedged,
    }


CLAIMS = [
    claim("caused by a mite", "agent", "a mite", "scabies"),
    claim("may itch", "symptom", "itch", hedged=True),
    claim("not  contagious", "contagious", "contagious", denied=True),
]


@pytest.fixture
def server():
    with chat_server(json.dumps({"claims": CLAIMS})) as running:
        yield running


def judged(server, text=TEXT, condition="scabies", **options):
    return KGScorer(reader=LanguageModelReader(server.url, "small", **options)).score(text, condition)


def said(item, text=TEXT):
    return item.claim.relation, item.claim.value, item.claim.positive, item.claim.hedged


def test_the_graph_judges_what_the_model_read(server):
    score = judged(server)
    assert {said(item) for item in score.supported} == {("agent", "mite", True, False), ("symptom", "itch", True, True)}
    ((relation, value, positive, _),) = map(said, score.contradicted)
    assert (relation, value, positive) == ("contagious", "contagious", False)
    assert score.unread == ()


def test_the_request_names_the_case_and_asks_for_strict_json(server):
    judged(server)
    ((path, body),) = server.asked
    assert path == "/v1/chat/completions" and body["model"] == "small" and body["temperature"] == 0
    assert body["response_format"]["json_schema"]["strict"] is True
    schema = body["response_format"]["json_schema"]["schema"]["properties"]["claims"]["items"]
    assert schema["required"] == list(CLAIMS[0]) and "agent" in schema["properties"]["relation"]["enum"]
    assert body["messages"][1]["content"] == f"The case: scabies\n\nThe text:\n{TEXT}"


def test_spans_point_at_the_quotation(server):
    record = as_record(judged(server), KGScorer().graph, TEXT)
    assert [TEXT[slice(*item["span"])] for item in record["supported"]] == ["caused by a mite", "may itch"]


@pytest.mark.parametrize(
    "lie",
    [
        claim("cures cancer", "category", "infection"),  # not in the text
        claim("", "category", "infection"),
        {**CLAIMS[0], "quote": 7},
        {"quote": "caused by a mite"},
        "caused by a mite",
        None,
    ],
)
def test_a_claim_without_a_true_quotation_does_not_count(server, lie):
    server.said = json.dumps({"claims": [lie]})
    score = judged(server)
    assert not score.claims
    assert score.unread in ((), ((11, 27),))


@pytest.mark.parametrize(
    "strange",
    [
        claim("caused by a mite", "agent", "a gremlin"),
        claim("caused by a mite", "brought_by", "a mite"),
        claim("caused by a mite", "agent", "a mite", "gremlinosis"),
        claim("caused by a mite", "site", "a mite"),
    ],
)
def test_what_the_graph_has_no_word_for_is_unread(server, strange):
    server.said = json.dumps({"claims": [strange]})
    score = judged(server)
    assert not score.claims and score.unread == ((11, 27),)
    assert score.score == 0


@pytest.mark.parametrize(
    "junk", ["", "I cannot do that.", "[1, 2", '{"claims": "none"}', "[]", '{"other": []}', "{" * 9999]
)
def test_junk_leaves_the_text_unread_and_is_not_kept(server, tmp_path, junk):
    server.said = junk
    score = judged(server, cache=tmp_path / "replies.jsonl")
    assert not score.claims and score.unread == ((0, len(TEXT)),) and len(server.asked) == 2
    server.said = json.dumps({"claims": CLAIMS})
    assert judged(server, cache=tmp_path / "replies.jsonl").supported


def test_replies_are_cached_by_text_and_survive_the_process(server, tmp_path):
    cache = tmp_path / "replies.jsonl"
    for _ in range(2):
        scorer = KGScorer(reader=LanguageModelReader(server.url, "small", cache=cache))
        assert scorer.score(TEXT, "scabies") == scorer.score(TEXT, "scabies")
    assert len(server.asked) == 1
    judged(server, TEXT + " Really.", cache=cache)
    judged(server, TEXT, "psoriasis", cache=cache)
    assert len(server.asked) == 3
    with pytest.raises(KnowledgeError, match=r"replies of another reader \(model was 'small', is 'large'\)"):
        KGScorer(reader=LanguageModelReader(server.url, "large", cache=cache)).score(TEXT, "scabies")


def test_a_file_that_is_no_cache_is_refused(server, tmp_path):
    (tmp_path / "notes.jsonl").write_text('{"model": "small"}\n{"id": 1}\n')
    with pytest.raises(KnowledgeError, match="no cache of replies"):
        judged(server, cache=tmp_path / "notes.jsonl")


def test_a_reply_in_a_code_block_is_read(server):
    server.said = f"Here they are:\n```json\n{json.dumps({'claims': CLAIMS})}\n```"
    assert len(judged(server).claims) == 3


def test_an_empty_text_asks_nobody(server):
    assert not judged(server, " \n").claims and not server.asked


def test_a_server_that_stalls_or_refuses_is_named(server):
    server.delay = 0.3
    with pytest.raises(TrainingError, match=r"no answer within 0\.05 seconds"):
        judged(server, timeout=0.05)
    server.delay, server.status, server.body = 0, 404, b'{"error": {"message": "no such model"}}'
    with pytest.raises(TrainingError, match=r"404 no such model.*Start an OpenAI-compatible server"):
        judged(server)
    with pytest.raises(KnowledgeError, match="needs a url"):
        LanguageModelReader("localhost:8000", "small")
