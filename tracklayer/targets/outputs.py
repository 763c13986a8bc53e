"""What every Terraform root gives back, whatever cloud it speaks to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tracklayer.errors import TerraformError


class Host(BaseModel):
    """A machine to configure and to run jobs on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(min_length=1, description="IP address or name")
    port: int = Field(22, ge=1, le=65535, description="Port of its SSH server")
    user: str | None = Field(None, description="Who logs in; null: who runs the platform")
    python: str = Field(pattern=r"^/", description="Path of its Python interpreter")
    connection: Literal["ssh", "local"] = "ssh"
    accelerators: list[str] = Field(description="One entry an accelerator, such as nvidia")
    hourly_cost: float = Field(ge=0, allow_inf_nan=False, description="In US dollars")


class Outputs(BaseModel):
    """The outputs of a root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: list[Host] = Field(min_length=1)

    @classmethod
    def check(cls, outputs: dict[str, object]) -> Outputs:
        """Read the outputs of an apply.

        :raises TerraformError: they are not what every root must give.
        """
        try:
            return cls.model_validate(outputs)
        except ValidationError as error:
            # The values stay out of the message: outputs may be sensitive.
            wrong = [
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
                for one in error.errors(include_input=False, include_url=False)
            ]
            raise TerraformError(
                "the outputs of the Terraform root are not those of a target:\n" + "\n".join(wrong),
                hint="Compare its outputs.tf with infra/terraform/local/outputs.tf.",
            ) from None
