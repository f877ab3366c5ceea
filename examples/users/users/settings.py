"""Settings of this service, read from USERS_* variables and `.env`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is also a variable, such as USERS_SEED."""

    model_config = SettingsConfigDict(
        env_prefix="USERS_",
        env_file=".env",
        extra="ignore",
        frozen=True,
    )

    seed: Annotated[int, Field(ge=0, le=10_000, description="users that exist at the start")] = 100
