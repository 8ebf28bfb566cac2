"""The cache of the page."""

from __future__ import annotations

from catalogue.models import Product
from django.core.cache import cache
from running import HandlerTests


class Cache(HandlerTests):
    names = ("product-cache",)

    def test_a_changed_product_leaves_the_cache_and_others_stay(self) -> None:
        lamp, chair = (Product.objects.create(name=name, price=1) for name in ("lamp", "chair"))
        self.handled()
        cached = {f"product:{lamp.pk}": 1, f"product:{chair.pk}": 2, "products": 3, "else": 4}
        cache.set_many(cached)
        Product.objects.filter(pk=lamp.pk).update(price=2)
        self.handled()
        assert cache.get_many(cached) == {f"product:{chair.pk}": 2, "else": 4}
