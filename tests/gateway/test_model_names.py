"""Models by their other names, and the virtual model, through a gateway as clients call it."""

import anthropic
import pytest

from accounts.models import Plan
from catalog.models import Model, ModelAlias
from tests.factories import make_key
from tests.gateway.conftest import INVALID, PERMISSION, Stage, chat, refused, wait_for


def test_a_model_is_listed_by_its_slug_and_found_by_every_name(stage: Stage) -> None:
    model = stage.model(supports_images=True)
    alias = ModelAlias.objects.create(name="vendor/fast", model=model)
    secret = make_key(stage.account()).secret
    wait_for(lambda: stage.get(f"models/{alias.name}", secret).status_code == 200)

    listed = stage.client(secret).models.list().data
    assert [each.id for each in listed] == ["auto", model.slug]
    for name in (model.slug, f"acme/{model.slug}", f"acme%2F{model.slug}", alias.name):
        facts = stage.get(f"models/{name}", secret).json()
        assert (facts["id"], facts["supports_tools"], facts["supports_images"]) == (model.slug, True, True)
        assert facts["endpoints"] == ["chat/completions", "completions", "responses", "messages"]
    refused(
        stage.get(f"models/other/{model.slug}", secret), 404, "model_not_found", type=INVALID, param="model"
    )


def test_a_model_is_called_by_every_name_and_the_receipt_has_its_slug(stage: Stage) -> None:
    model = stage.model()
    ModelAlias.objects.create(name="fast", model=model)
    secret = make_key(stage.account(), allowed_models=[model.slug]).secret
    wait_for(lambda: stage.get("models/fast", secret).status_code == 200)

    for name in (model.slug, f"acme/{model.slug}", "fast"):
        response = stage.post(secret, chat(name))
        assert response.status_code == 200
        assert response.headers["x-tollgate-model"] == model.slug
        assert stage.record(response).model == model


def test_a_new_alias_is_understood_and_a_removed_one_is_not(stage: Stage) -> None:
    alias = ModelAlias.objects.create(name="fast", model=stage.model())
    secret = make_key(stage.account()).secret
    wait_for(lambda: stage.post(secret, chat("fast")).status_code == 200)

    alias.delete()

    wait_for(lambda: stage.post(secret, chat("fast")).status_code == 404)


@pytest.mark.parametrize("stream", [False, True])
def test_auto_is_served_by_the_cheapest_and_says_which(stage: Stage, stream: bool) -> None:
    stage.model(output_price="9")
    cheap = stage.model(output_price="0.5", tier=Model.Tier.PREMIUM)
    secret = make_key(stage.account(credit="1")).secret

    response = stage.post(secret, chat("auto", stream=stream))

    assert response.status_code == 200
    assert response.headers["x-tollgate-model"] == cheap.slug
    record = stage.record(response)
    assert (record.model, record.output_usd_per_mtok) == (cheap, cheap.prices.get().output_usd_per_mtok)


def test_auto_is_listed_as_what_it_stands_for(stage: Stage) -> None:
    stage.model(context_window=5_000)
    stage.model(context_window=9_000, tier=Model.Tier.PREMIUM, supports_images=True)
    rich, poor = (make_key(stage.account(plan=plan)).secret for plan in (Plan.PAY_AS_YOU_GO, Plan.BASIC))

    facts = stage.get("models/auto", rich).json()
    assert (facts["context_length"], facts["supports_images"], facts["pricing"]) == (9_000, True, None)
    assert stage.get("models/auto", poor).json()["context_length"] == 5_000


def test_a_key_for_some_endpoints_is_shown_what_is_served_there(stage: Stage) -> None:
    chatting = stage.model()
    embedding = stage.model(kind=Model.Kind.EMBEDDING, max_output_tokens=None)
    account = stage.account()
    embeds = make_key(account, allowed_endpoints=["embeddings"]).secret
    answers = make_key(account, allowed_endpoints=["messages", "responses"]).secret

    assert [facts["id"] for facts in stage.get("models", embeds).json()["data"]] == [embedding.slug]
    refused(stage.get(f"models/{chatting.slug}", embeds), 403, "endpoint_not_allowed", type=PERMISSION)
    refused(stage.get("models/auto", embeds), 403, "endpoint_not_allowed", type=PERMISSION)
    listed = {facts["id"]: facts["endpoints"] for facts in stage.get("models", answers).json()["data"]}
    there = ["responses", "messages"]
    assert listed == {"auto": there, chatting.slug: there}


def test_anthropics_client_lists_the_models_too(stage: Stage) -> None:
    model = stage.model()
    secret = make_key(stage.account()).secret

    with anthropic.Anthropic(api_key=secret, base_url=stage.gateway.origin) as client:
        listed = list(client.models.list())
        one = client.models.retrieve(model.slug)

    assert [each.id for each in listed] == ["auto", model.slug]
    assert {each.type for each in listed} == {"model"}
    assert (one.type, one.display_name, one.lifecycle) == ("model", model.name, "active")
    assert one.created_at.timestamp() == pytest.approx(model.created_at.timestamp(), abs=1)


def test_without_a_model_to_choose_from_there_is_no_auto(stage: Stage) -> None:
    stage.model(tier=Model.Tier.PREMIUM)
    secret = make_key(stage.account(plan=Plan.BASIC)).secret

    assert stage.get("models", secret).json()["data"] == []
    described, asked = stage.get("models/auto", secret), stage.post(secret, chat("auto"))
    message = refused(described, 403, "plan_upgrade_required", type=PERMISSION, param="model")
    assert refused(asked, 403, "plan_upgrade_required", type=PERMISSION, param="model") == message
    vectors = stage.model(kind=Model.Kind.EMBEDDING, max_output_tokens=None)
    nothing = make_key(stage.account(), allowed_models=[vectors.slug]).secret
    refused(stage.get("models/auto", nothing), 403, "model_not_allowed", type=PERMISSION, param="model")


def test_where_credit_does_not_pay_for_the_cheapest_the_allowance_pays_for_another(stage: Stage) -> None:
    stage.model(output_price="0.5", tier=Model.Tier.PREMIUM)
    free = stage.model(output_price="9")
    secret = make_key(stage.account(credit="0")).secret

    response = stage.post(secret, chat("auto", max_tokens=100))

    assert response.status_code == 200, response.text
    assert response.headers["x-tollgate-model"] == free.slug
    assert response.headers["x-tollgate-cost-usd"] == "0.000000000"
