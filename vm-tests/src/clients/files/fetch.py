"""Asks for a URL with one of Python's HTTP clients and prints what it got."""

import sys


def urllib_(url):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error, error.read().decode())


def requests_(url):
    import requests

    answer = requests.get(url, timeout=60)
    print(answer.status_code, answer.text)
    answer.raise_for_status()


def httpx_(url):
    import httpx

    with httpx.Client(http2=True, timeout=60) as client:
        answer = client.get(url)
        print(answer.http_version, answer.status_code, answer.text)
        answer.raise_for_status()


def aiohttp_(url):
    import asyncio

    import aiohttp

    async def get():
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            print(answer.status, answer.reason, await answer.text())
            answer.raise_for_status()

    asyncio.run(get())


{"urllib": urllib_, "requests": requests_, "httpx": httpx_, "aiohttp": aiohttp_}[sys.argv[1]](sys.argv[2])
