"""Settings of this service, read from the environment and `.env`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is a variable with this prefix, in upper case."""

    model_config = SettingsConfigDict(
        env_prefix="{{ env_prefix }}",
        env_file=".env",
        extra="ignore",
        frozen=True,
    )

    page_size: Annotated[int, Field(ge=1, le=1000, description="most items in one list")] = 50
