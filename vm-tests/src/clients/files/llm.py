"""One call with an SDK as it ships: `llm.py SDK whole|stream|refused`."""

import json
import sys
import urllib.request

SAY = [{"role": "user", "content": "say hello"}]
sdk, what = sys.argv[1:]


def taken(host, number):
    """Tells the server that a piece has arrived; it sends the next one only then."""
    urllib.request.urlopen(f"https://{host}/taken/{number}", timeout=30).read()


def openai_():
    import openai

    client = openai.OpenAI(max_retries=0)
    if what == "refused":
        client.models.list()
    elif what == "whole":
        print(client.chat.completions.create(model="m", messages=SAY).choices[0].message.content)
    else:
        stream = client.chat.completions.create(model="m", messages=SAY, stream=True)
        for number, piece in enumerate(stream, 1):
            print(piece.choices[0].delta.content, end="")
            taken("api.openai.com", number)


def anthropic_():
    import anthropic

    client = anthropic.Anthropic(max_retries=0)
    if what == "refused":
        client.models.list()
    elif what == "whole":
        print(client.messages.create(model="m", max_tokens=9, messages=SAY).content[0].text)
    else:
        with client.messages.stream(model="m", max_tokens=9, messages=SAY) as stream:
            for number, text in enumerate(stream.text_stream, 1):
                print(text, end="")
                taken("api.anthropic.com", number)


def bedrock_():
    import boto3
    from botocore.config import Config

    config = Config(retries={"total_max_attempts": 1})
    client = boto3.client("bedrock-runtime", region_name="us-east-1", config=config)
    model = "refused" if what == "refused" else "allowed"
    say = [{"role": "user", "content": [{"text": "say hello"}]}]
    print(client.converse(modelId=model, messages=say)["output"]["message"]["content"][0]["text"])


try:
    {"openai": openai_, "anthropic": anthropic_, "bedrock": bedrock_}[sdk]()
except Exception as error:
    print(type(error).__name__, error)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        print(json.dumps(response, default=str))
    sys.exit(1)
