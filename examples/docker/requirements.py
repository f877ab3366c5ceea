"""Prints what the examples need besides meshkit itself, one requirement a line."""

import tomllib

PROJECTS = ("meshkit", "users", "orders")
EXTRAS = ("dns", "metrics", "zookeeper")

for project in PROJECTS:
    with open(f"{project}/pyproject.toml", "rb") as file:  # noqa: PTH123 - as it is documented
        declared = tomllib.load(file)["project"]
    for requirement in declared["dependencies"]:
        if not requirement.startswith("meshkit"):
            print(requirement)
    for extra in EXTRAS if project == "meshkit" else ():
        print(*declared["optional-dependencies"][extra], sep="\n")
