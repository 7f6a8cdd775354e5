"""/invocations in its JSON formats and CSV, and what is refused. Arguments: host:port."""

import sys

import requests

url = f"http://{sys.argv[1]}"
records = [{"a": 0.1, "b": 0.2}, {"a": 0.3, "b": 0.4}]
for sent in (
    {"dataframe_records": records},
    {"dataframe_split": {"columns": ["a", "b"], "data": [[0.1, 0.2], [0.3, 0.4]]}},
    {"instances": records},
    {"inputs": {"a": [0.1, 0.3], "b": [0.2, 0.4]}},
    {"inputs": 1, "instances": 2},
    {},
):
    print(requests.post(f"{url}/invocations", json=sent).status_code)
for kind, text in (("text/csv", "a,b\n0.1,0.2\n"), ("text/html", "x"), ("application/json", "[")):
    answer = requests.post(f"{url}/invocations", data=text, headers={"content-type": kind})
    print(answer.status_code)
print(requests.get(f"{url}/ping").status_code, requests.get(f"{url}/version").text)
