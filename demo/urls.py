"""URLs of the demo."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from demo import views, writes

urlpatterns = [
    path("", views.board, name="board"),
    # Browsers ask for it on pages that name no icon, such as the admin's.
    path("favicon.ico", RedirectView.as_view(url=static("demo/mark.svg"))),
    path("sign-in", views.SignIn.as_view(), name="login"),
    path("sign-out", LogoutView.as_view(next_page="login"), name="logout"),
    path("board/rows", views.rows, name="board-rows"),
    path("board/tasks", writes.add_task, name="add-task"),
    path("board/tasks/<int:pk>/edit", writes.edit_task, name="edit-task"),
    path("board/tasks/<int:pk>/move", writes.move_task, name="move-task"),
    path("board/tasks/<int:pk>/delete", writes.delete_task, name="delete-task"),
    path("board/messages", writes.add_message, name="add-message"),
]
