"""The search index of the page."""

from __future__ import annotations

from articles.models import Article
from meilisearch import documents
from running import HandlerTests


class Search(HandlerTests):
    names = ("article-search",)

    def test_documents_follow_the_rows(self) -> None:
        documents.clear()
        Article.objects.bulk_create([Article(title=title) for title in ("a", "b", "c")])
        self.handled()
        assert [row["title"] for row in documents.values()] == ["a", "b", "c"]
        Article.objects.filter(title="b").update(title="B")
        Article.objects.filter(title="c").delete()
        Article.objects.create(title="made and gone").delete()
        self.handled()
        assert sorted(row["title"] for row in documents.values()) == ["B", "a"]
