"""Labels through a real gateway: late, corrected, duplicated, contradicting, without a decision."""

import os
import time
import uuid

import httpx2
import numpy as np
import orjson
import pytest
from gateway_process import KEY, GatewayProcess, body
from sklearn import metrics

PEOPLE = 60


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    made = GatewayProcess(
        tmp_path_factory.mktemp("feedback"),
        edit=lambda text: text.replace("split: {v1: 95%, v2: 5%}", "split: {v1: 100%}").replace(
            "count: 500", "count: 50"
        ),
    ).start()
    yield made
    made.kill_all()


@pytest.fixture(scope="module")
def decided(gateway) -> list[tuple[str, float]]:
    """Ids and scores of people who differ."""
    found = []
    for number in range(PEOPLE):
        race = "black" if number % 3 == 0 else "other"
        answer = httpx2.post(
            f"http://{gateway.data}/v2/models/mortgage/infer",
            content=body(lvr=0.4 + number / 50, dir=0.2 + number / 100),
            headers=KEY | {"x-headworks-groups": f"race={race}"},
        )
        found.append((answer.headers["x-headworks-id"], answer.json()["outputs"][0]["data"][0]))
    return found


def tell(gateway, lines, **parameters):
    content = b"\n".join(orjson.dumps(line) for line in lines)
    url = f"http://{gateway.data}/-/feedback"
    return httpx2.post(url, content=content, headers=KEY, params=parameters)


def performance(gateway):
    """Once the analyst has read all that was told."""
    gateway.wait_settled()
    return gateway.api("/api/v1/monitor/mortgage/performance")


def stable(told):
    (cohort,) = [one for one in told["cohorts"] if one["arm"] == "stable"]
    return cohort


def wait(gateway, holds):
    for _ in range(200):
        told = performance(gateway)
        if holds(told):
            return told
        time.sleep(0.05)
    raise AssertionError(told)


def test_labels_become_figures_and_survive_a_rebuild(gateway, decided, tmp_path):
    """By command and by POST; what is in force is the label observed last, whatever came last; the
    figures are those that scikit-learn makes of the scores that were answered."""
    labels = [int(number % 7 in (0, 1) or number > 40) for number in range(PEOPLE)]
    file = tmp_path / "labels.jsonl"
    first = [{"id": identity, "label": labels[place], "observed_at": "2026-01-02T00:00:00Z"}
             for place, (identity, _) in enumerate(decided[:50])]  # fmt: skip
    file.write_bytes(b"\n".join(map(orjson.dumps, first)))
    os.environ["HEADWORKS_CALLER_TOKEN"] = "demo-key"
    done = gateway.run("feedback", str(file), "--model", "mortgage")
    assert (done.returncode, done.stdout) == (0, "50 labels were taken\n"), done.stderr

    wrong, stale, twice, gone = (decided[place][0] for place in (3, 4, 5, 6))
    answer = tell(gateway, [
        {"id": wrong, "label": 1 - labels[3], "observed_at": "2026-01-03T00:00:00Z"},
        {"id": stale, "label": 1 - labels[4], "observed_at": "2026-01-01T00:00:00Z",
         "source": "c"},
        {"id": twice, "label": labels[5], "observed_at": "2026-01-04T00:00:00Z", "source": "b"},
        {"id": gone, "label": None},
        {"id": str(uuid.uuid4()), "label": 1},
        {"id": decided[7][0], "row": 9, "label": 1},
        {"id": decided[55][0], "label": "no-such-word"},
    ])  # fmt: skip
    assert answer.status_code == 202, answer.text
    labels[3] = 1 - labels[3]

    told = wait(gateway, lambda found: found["labels"]["labels"] == 55)
    assert told["labels"] == {"labels": 55, "decisions": 51, "corrected": 3, "duplicates": 1,
                              "contradicting": 1}  # fmt: skip
    assert told["unmatched"] == 2
    cohort = stable(told)
    known = [place for place in range(50) if place != 6]
    scores = np.array([decided[place][1] for place in known])
    actual = np.array([labels[place] for place in known])
    figures = cohort["realised"]["figures"]
    assert (cohort["decisions"], cohort["labelled"], cohort["unusable"]) == (PEOPLE, 50, 1)
    assert cohort["realised"]["n"] == len(known)
    assert figures["auc"] == pytest.approx(metrics.roc_auc_score(actual, scores), abs=1e-5)
    groups = {
        group["value"]: (group["labelled"], group["decisions"])
        for found in told["groups"]
        if found["arm"] == "stable"
        for group in found["groups"]
    }
    held = [place for place in (*range(50), 55) if place != 6]
    black = sum(place % 3 == 0 for place in held)
    assert groups == {"black": (black, 17), "other": (len(held) - black, 33)}  # one window of 50
    assert figures["brier"] == pytest.approx(np.mean((scores - actual) ** 2), abs=1e-5)

    again = httpx2.post(f"http://{gateway.admin}/api/v1/catalog/rebuild", timeout=60)
    assert again.status_code == 200, again.text
    assert stable(performance(gateway)) == cohort
    done = gateway.run("monitor", "mortgage")
    assert "55 labels of 51 decisions" in done.stdout, done.stderr


def test_a_label_is_a_leaf_of_its_model(gateway, decided):
    """The ledger holds what was told, by whom; the log is the model's where it was named."""
    answer = tell(gateway, [{"id": decided[0][0], "label": 1, "source": "bureau"}],
                  model="mortgage")  # fmt: skip
    gateway.wait_settled()
    folder = gateway.folder / "state" / "ledger" / "models" / "mortgage"
    held = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert answer.json()["id"].encode() in held
    assert b'"bureau"' in held


def test_a_wrong_file_sends_nothing(gateway, decided, tmp_path):
    """One bad line: exit 2, the line is named, and no label of the others is taken."""
    before = performance(gateway)["labels"]
    file = tmp_path / "labels.csv"
    file.write_text(f"id,label\n{decided[1][0]},1\nnobody,1\n")
    done = gateway.run("feedback", str(file))
    assert done.returncode == 2
    assert "label 2: id='nobody'" in done.stderr
    assert performance(gateway)["labels"] == before
