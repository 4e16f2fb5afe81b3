import ipaddress

import pytest
from pytest_django.fixtures import Settings

from catalog.addresses import UnsafeAddressError, judge_address, judge_base_url

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://api.example.com:8443/v1",
        f"https://{PUBLIC}/v1",
        "https://[2606:4700::6810:84e5]/v1",
    ],
)
def test_public_addresses_over_https_are_allowed(url: str) -> None:
    judge_base_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "ftp://api.example.com/v1",
        "https:///v1",
        "https://user@api.example.com/v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/v1#a",
        "https://api.example.com:no/v1",
        "https://api .example.com/v1",
        "https://localhost/v1",
        "https://a.localhost/v1",
        "https://127.0.0.1/v1",
        "https://127.1/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://017700000001/v1",
        "https://10.0.0.1/v1",
        "https://172.16.0.1/v1",
        "https://192.168.1.1/v1",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/v1",
        "https://0.0.0.0/v1",
        "https://224.0.0.1/v1",
        "https://[::1]/v1",
        "https://[::]/v1",
        "https://[fe80::1]/v1",
        "https://[fec0::1]/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://[fd00::1]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://[::ffff:7f00:1]/v1",
        "https://[::127.0.0.1]/v1",
        "https://[64:ff9b::a9fe:a9fe]/v1",
        "https://[2002:7f00:1::]/v1",
        "https://[nonsense]/v1",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(UnsafeAddressError):
        judge_base_url(url)


def test_the_operators_networks_are_allowed_over_plain_http_too(settings: Settings) -> None:
    settings.UPSTREAM_PRIVATE_NETWORKS = ["10.1.0.0/16"]

    judge_base_url("http://10.1.2.3:8000/v1")
    judge_base_url("https://10.1.2.3/v1")
    judge_base_url("http://[::ffff:10.1.2.3]/v1")
    judge_base_url("http://models.internal.example/v1")  # its address is judged when it is called
    for url in ("http://10.2.0.1/v1", "https://10.2.0.1/v1", f"http://{PUBLIC}/v1", "http://localhost/v1"):
        with pytest.raises(UnsafeAddressError):
            judge_base_url(url)


def test_an_address_that_a_name_leads_to_is_judged_as_strictly(settings: Settings) -> None:
    judge_address(ipaddress.ip_address(PUBLIC), is_plain=False)
    with pytest.raises(UnsafeAddressError, match="plain http"):
        judge_address(ipaddress.ip_address(PUBLIC), is_plain=True)
    with pytest.raises(UnsafeAddressError, match="not a public address"):
        judge_address(ipaddress.ip_address("::ffff:169.254.169.254"), is_plain=False)
