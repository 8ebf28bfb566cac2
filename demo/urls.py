"""URLs of the demo."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from demo import views
from demo.api import router

urlpatterns = [
    path("", views.board, name="board"),
    # Browsers ask for it on pages that name no icon, such as the admin's.
    path("favicon.ico", RedirectView.as_view(url=static("demo/mark.svg"))),
    path("sign-in", views.SignIn.as_view(), name="login"),
    path("sign-out", LogoutView.as_view(next_page="login"), name="logout"),
    path("board/rows", views.rows, name="board-rows"),
    path("api/", include(router.urls)),
]
