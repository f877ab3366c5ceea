"""Project templates: what a project is called, its rendered files, and how they are written."""
